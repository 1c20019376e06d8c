"""Questions about passages, answered with neurons off and steered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lape.data.languages import paths_by_tag
from lape.errors import TextError
from lape.experiments.answering.run import ANSWERS, TABLE, answering
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, Cost, Experiment, default_section, named
from lape.experiments.section import Section
from lape.experiments.table import Table
from lape.figures.captions import PASSAGES, counted
from lape.figures.dots import dots
from lape.figures.figure import Figure

__all__ = ["EXPERIMENT", "answering"]

ANSWERED = {name: kind for name, kind in ANSWERS.items() if name not in ("question", "accepted")}
"""What is kept of each answer: all but what stands in the file that the questions are from."""


@dataclass(frozen=True)
class AnsweringStudy:
    """What of it a study sets."""

    answering: tuple[str, ...] = ()
    """TAG=FILE, once per language: questions about passages, in SQuAD's format."""
    questions: int = 20
    """Questions of each language that are answered with neurons off."""
    answer_draws: int = 1
    """Draws of matched control neurons with which those questions are answered, in every language."""

    @property
    def files(self) -> dict[str, Path]:
        """Language -> its file. Raises TextError for what names none, and for a language named twice."""
        found: dict[str, Path] = {}
        for language, path in paths_by_tag("answering", self.answering, "fr=french.json"):
            if language in found:
                raise TextError(f"answering names several files for {language}. Expected one file for each language.")
            found[language] = Path(path)
        return found


GIVEN = named(
    "answering",
    "no questions about passages were given (--answering TAG=FILE, in SQuAD's format, such as XQuAD's)",
    "--answering TAG=FILE",
)
"""Only with a user's files."""


def _run(context: Context, options: AnsweringStudy) -> Tables:
    """Questions about passages, unedited, with the language's neurons off, steered, and with matched neurons off."""
    found = answering(
        context.model,
        context.tokenizer,
        context.neurons,
        context.stats,
        options.files,
        questions=options.questions,
        draws=options.answer_draws,
        resamples=context.options.resamples,
        seed=context.options.seed,
        folder=context.cells("answering"),
        progress=context.progress,
    )
    context.note("answering", *found.notes)
    return {"answering": found["answering"], "answered": found["answers"].select(*ANSWERED)}


def _cost(_context: Context, options: AnsweringStudy) -> Cost:
    """Unedited, off, steered and each draw of the control, per language; each answer of at most 32 tokens; reading the passages comes on top."""
    prompts = options.questions * len(options.files) * (3 + options.answer_draws)
    return Cost(body_tokens=prompts * 400, new_tokens=32 * max(1, prompts // 8))


def _section(tables: Tables) -> Section:
    return default_section(EXPERIMENT, {"answering": tables["answering"]} if "answering" in tables else {})


EXPERIMENT = Experiment(
    name="answering",
    title="Questions about passages",
    about="questions about passages, with neurons off and steered",
    options=AnsweringStudy,
    run=_run,
    tables={
        "answering": Table(
            "Scores of the answers in each condition, 0 to 1, and their change of F1 from the unedited model; with the set off, how much lower F1 is than with "
            "matched neurons off, on the mean of their draws; one greedy answer to each question.",
            TABLE,
            added=("energy_ratio", "below_control", "below_control_low", "below_control_high"),
        ),
        "answered": Table("Every answer, by the id of its question, with its scores.", ANSWERED),
    },
    needs=(MODEL, GIVEN),
    cost=_cost,
    figures=(
        Figure(
            "answering",
            "Questions about passages under edits",
            ("answering",),
            dots("answering", ["language", "condition"], "difference_f1", "change of F1", 0.0),
            counted(
                "answering",
                "Change of the answers' F1 from that of the unedited model, question by question; one greedy answer to each question.",
                "questions",
                "questions",
                PASSAGES,
            ),
        ),
    ),
    section=_section,
    claims=beside(__file__),
    reads=lambda options: options.files,
)
