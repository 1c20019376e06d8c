"""What the model answers while languages are off."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lape.data import samples
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, Cost, Experiment, Need, default_section
from lape.experiments.generation.figures import generation as draw
from lape.experiments.generation.run import ANSWERS, SilencedOptions, silenced
from lape.experiments.generation.table import ADDED_DROPS, ADDED_SHARES, DROPS, SHARES, drops, shares
from lape.experiments.section import Answer, Answers, Asked, Section
from lape.experiments.table import Table
from lape.extras import lacking
from lape.figures.captions import QUESTIONS, counted
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.measure.questions import besides, few_native
from lape.options import Candidates, GraderOptions, NotNegative, Positive

__all__ = ["EXPERIMENT", "drops", "shares", "silenced"]

_SHOWN = 2
"""Questions of each language that a report shows."""


@dataclass(frozen=True)
class GenerationStudy(GraderOptions):
    """What of it a study sets."""

    questions: Positive = 20
    """Questions of each language that are answered with neurons off."""
    candidates: Candidates = 4
    """An answer is on topic if its own question makes it likelier than the others of this many do."""
    answer_draws: NotNegative = 1
    """Draws of matched control neurons with which those questions are answered, in every language."""


def _missing(context: Context, options: GenerationStudy) -> str | None:
    """Bundled questions in the languages, and a language identifier, are needed."""
    if not _asked(context, options):
        return f"the bundled questions are in {', '.join(samples.questions('reporting'))}, none of which was recorded"
    if options.questions < 2:
        return "it needs at least 2 questions of each language"
    return lacking("lid", "identifying languages", "lingua", "py3langid")


def _asked(context: Context, options: GenerationStudy) -> dict[str, list[str]]:
    """The reported questions in the languages studied."""
    found = samples.questions("reporting")
    return {language: found[language][: options.questions] for language in context.languages if language in found}


def _run(context: Context, options: GenerationStudy) -> Tables:
    """Questions answered with each language's neurons off; good answers are a proxy for a judge's marks."""
    shared = context.options
    asked = _asked(context, options)
    native = besides(samples.questions("native"), asked)
    context.note("generation", *few_native(native))
    answers = silenced(
        context.model,
        context.tokenizer,
        context.neurons,
        context.stats,
        asked,
        options=SilencedOptions(
            draws=options.answer_draws,
            candidates=options.candidates,
            seed=shared.seed,
            grader_url=options.grader_url,
            grader_model=options.grader_model,
        ),
        native=native,
        folder=context.cells("generation"),
        progress=context.progress,
    )
    return {
        "generation": shares(answers, resamples=shared.resamples, seed=shared.seed),
        "drops": drops(answers, over=context.over, resamples=shared.resamples, seed=shared.seed),
        "answers": answers,
    }


def _cost(context: Context, options: GenerationStudy) -> Cost:
    """Every language under every language's set, its controls and none; scoring topics is about as much again."""
    languages = len(_asked(context, options))
    cells = languages * ((1 + options.answer_draws) * languages + 1)
    return Cost(
        passes=cells,
        body_tokens=cells * options.questions * 20,
        loss_tokens=cells * options.questions * options.candidates * 40 // 2,
        new_tokens=32 * (cells + 2 * languages) * -(-options.questions // 40),
    )


def _section(tables: Tables) -> Section:
    measured = {name: frame for name, frame in tables.items() if name != "answers"}
    about = "The first questions of each language, as they came. A green edge: the identifier calls the answer the language of the question."
    shown = (Answers("Answers", about, _sampled(tables["answers"])),) if "answers" in tables else ()
    return default_section(EXPERIMENT, measured, after=shown)


def _sampled(table: pl.DataFrame) -> list[Asked]:
    result = []
    for language in table["language"].unique(maintain_order=True):
        mine = table.filter((pl.col("language") == language) & ~pl.col("control") & (pl.col("draw") == 0))
        for question in mine["question"].unique().sort().head(_SHOWN).to_list():
            rows = mine.filter((pl.col("question") == question) & pl.col("off").is_in(["none", language]))
            answers = [
                Answer.of("nothing off" if row["off"] == "none" else f"{row['off']} off", row, "identified")
                for row in rows.iter_rows(named=True)
            ]
            result.append(Asked(question, language, language, answers))
    return result


EXPERIMENT = Experiment(
    name="generation",
    title="Answers while a language is off",
    about="answers with neurons off, one greedy answer to each question (good answers: a proxy)",
    options=GenerationStudy,
    run=_run,
    tables={
        "generation": Table(
            "Shares of good answers (a proxy; one greedy answer to each question) with each language's neurons off, asked in each language.",
            SHARES,
            added=ADDED_SHARES,
        ),
        "drops": Table(
            "Share of good answers (a proxy; one greedy answer to each question) lost with a language's neurons off, in it and in the others, beside that "
            "lost with matched neurons off, on the mean of their draws; and the language that most answers turn to.",
            DROPS,
            added=ADDED_DROPS,
        ),
        "answers": Table(
            "Every answer, one for each question and condition, with its verdicts.",
            ANSWERS,
            added=("mixed", "foreign", "calibrated_on", "energy_ratio"),
        ),
    },
    needs=(MODEL, Need(_missing)),
    cost=_cost,
    figures=(
        Figure(
            "generation",
            "Answers with neurons off",
            ("generation",),
            draw,
            counted(
                "generation",
                "Share of good answers (a proxy) with a language's neurons off (row), asked in each language (column); one greedy answer to each question.",
                "questions",
                "questions",
                "Shares, drawn without intervals.",
            ),
        ),
        Figure(
            "drops",
            "Good answers lost, beside control neurons",
            ("drops",),
            dots("drops", ["language"], "value", "share of good answers lost, own − matched neurons", 0.0),
            counted(
                "drops",
                "Share of good answers (a proxy) lost with a language's own neurons off, less that lost with matched control neurons off; one greedy answer to "
                "each question, and the mean over the draws of control neurons.",
                "questions",
                "questions",
                QUESTIONS,
            ),
        ),
    ),
    section=_section,
    claims=beside(__file__),
)
