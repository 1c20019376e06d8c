"""Questions about passages, answered with neurons off and steered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lape.data.languages import paths_by_tag
from lape.errors import TextError
from lape.experiments.answering.run import TABLE, answering
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, Cost, Experiment, named
from lape.experiments.table import Table
from lape.figures.captions import QUESTIONS, counted
from lape.figures.dots import dots
from lape.figures.figure import Figure

__all__ = ["EXPERIMENT", "answering"]


@dataclass(frozen=True)
class AnsweringStudy:
    """What of it a study sets."""

    answering: tuple[str, ...] = ()
    """TAG=FILE, once per language: questions about passages, in SQuAD's format."""
    questions: int = 20
    """Questions of each language that are answered with neurons off."""

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
        resamples=context.options.resamples,
        seed=context.options.seed,
        progress=context.progress,
    )
    context.note("answering", *found.notes)
    return {"answering": found["answering"]}


def _cost(_context: Context, options: AnsweringStudy) -> Cost:
    """Four conditions per language, each answer of at most 32 tokens; reading the passages comes on top."""
    prompts = options.questions * len(options.files) * 4
    return Cost(body_tokens=prompts * 400, new_tokens=32 * max(1, prompts // 8))


EXPERIMENT = Experiment(
    name="answering",
    title="Questions about passages",
    about="questions about passages, with neurons off and steered",
    options=AnsweringStudy,
    run=_run,
    tables={
        "answering": Table(
            "Scores of the answers in each condition, 0 to 1, and their change of F1 from the unedited model; one greedy answer to each question.",
            TABLE,
        )
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
                QUESTIONS,
            ),
        ),
    ),
    claims=beside(__file__),
    reads=lambda options: options.files,
)
