"""Questions about a passage, answered in its own words: what a language's neurons do to a task, off and amplified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn

from lape.data.languages import tag
from lape.edit.steer import PUBLISHED, SteerOptions
from lape.errors import OptionError, TextError
from lape.experiments.answering.passages import first_line, has_frame, passage_prompt, shots_for, spread
from lape.experiments.answering.scores import LIBRARY, overlap
from lape.experiments.answering.squad import Question, read_squad
from lape.extras import need
from lape.measure.bootstrap import Floats, Resamples, by_unit
from lape.measure.conditions import NONE, Condition, conditions
from lape.measure.generation import GenerationOptions, generate
from lape.measure.intervals import ENDS, resampled
from lape.measure.prompts import prompt_ids
from lape.measure.result import Result
from lape.model.body import text_config
from lape.model.identity import check_made_with
from lape.options import given, not_negative, positive
from lape.progress import Progress, each, shown
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCORES = ("exact", "f1", "rouge_l")
ANSWERS = {
    **dict.fromkeys(("language", "condition"), pl.String),
    "draw": pl.Int64,
    "id": pl.String,
    **dict.fromkeys(("number", "passage"), pl.Int64),
    **dict.fromkeys(("question", "accepted", "answer"), pl.String),
    **dict.fromkeys(SCORES, pl.Float64),
    "energy_ratio": pl.Float64,
}
"""One row per language, condition, draw of control neurons (0 for all else) and question. `number`: its place in the file, and `passage` that of its
passage; `accepted`: the first right answer; `answer`: the first line written; the scores, 0 to 1: `lape.experiments.answering.scores.overlap`;
`energy_ratio`: the set's written energy over the control's.
"""
TABLE = {
    **dict.fromkeys(("language", "condition"), pl.String),
    **dict.fromkeys(("draw", "questions"), pl.Int64),
    **{f"{score}{end}": pl.Float64 for score in SCORES for end in ENDS},
    **resampled("difference_f1", "below_control"),
    "energy_ratio": pl.Float64,
}
"""One row per language, condition and draw: mean scores over questions, and the mean difference of F1 to `none` question by question, with 95 %
bootstrap intervals over passages, whose questions stay together, and, of the difference, the bootstrap's quantiles; null under 20 passages.
`below_control`, of `off` alone: how much lower its F1 is than the mean over the draws of control neurons, over these draws too.
`energy_ratio`, of a control: the set's written energy over its own.
"""


@dataclass(frozen=True)
class AnsweringOptions(GenerationOptions):
    """How questions about a passage are put, and how the answers are compared."""

    repetition_penalty: float = 1.0
    """Divides the logits of tokens that occurred already (multiplies negative ones); 1 is none, since an answer copies words of the passage."""
    batch: int = 8
    """Prompts that run at once."""
    questions: int | None = None
    """At most this many questions of each file, evenly spread over it. Default: all."""
    shots: int = 1
    """Answered questions shown first, each about a passage of another article."""
    draws: int = 1
    """Draws of matched control neurons."""
    resamples: int = 2000
    """Bootstrap resamples of the passages behind the 95 % intervals."""
    seed: int = 0
    """Seed of the shots, the control draws and the bootstrap."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "questions", "resamples")
        not_negative(self, "shots", "draws")


def answering(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    files: Mapping[str, str | Path],
    *,
    new_tokens: int = 32,
    repetition_penalty: float = 1.0,
    batch: int = 8,
    questions: int | None = None,
    shots: int = 1,
    draws: int = 1,
    resamples: int = 2000,
    seed: int = 0,
    steer: SteerOptions | None = None,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Ask each language's questions about passages in that language, unedited and under edits of its own neurons.

    `files`: language -> file in SQuAD's format, such as XQuAD's. Conditions: `none`; `off` (the language's neurons at 0);
    `steered` (set or added to by `steer`, without a source: the model leans to the language that it is asked in); `control` (as
    many other neurons at 0, in the same layers the nearest in written energy). Every condition is given the same prompts. Ours; the paper
    does not give its own set-up. `folder`: where answers in finished conditions are kept and found again; it must belong to one model, its
    neurons, these files and options, who makes it sees to that.

    Gives the tables `answering` (`TABLE`: mean scores, 0 to 1, with 95 % intervals over passages) and `answers` (`ANSWERS`); notes say what was left
    out. Raises TextError for files that cannot be used, MismatchError for another model's neurons or statistics, OptionError for passages that do not
    fit the model or where the extra `eval` is missing.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from lape.experiments.answering.run import answering
        >>> asked = {"id": "1", "question": "fr03 fr04", "answers": [{"text": "fr05", "answer_start": 0}]}
        >>> article = {"title": "fr", "paragraphs": [{"context": "fr05 fr06 .", "qas": [asked]}]}
        >>> _ = Path("questions.json").write_text(json.dumps({"data": [article]}))
        >>> result = answering(model, tokenizer, neurons, stats, {"fr": "questions.json"}, shots=0, new_tokens=2)
        >>> result["answering"]["condition"].to_list()
        ['none', 'off', 'steered', 'control']
    """
    options = given(AnsweringOptions, locals())
    need(*LIBRARY)
    asked = _asked(files, options)
    check_made_with(model, tokenizer, neurons=neurons, statistics=stats)
    runs, notes = _runs(model, neurons, stats, asked, steer or PUBLISHED, options)
    prompts = {language: _prompts(tokenizer, language, asked[language], options) for language in asked}
    for language, found in prompts.items():
        _check_fits(model, tokenizer, language, found, options)
    cells, frames = Cells(folder), []
    for language, condition in each(runs, "answering questions", progress):
        about = (model, tokenizer, language, condition, asked[language].chosen, prompts[language], options)
        frames.append(cells.table(f"{language}.{condition.name}.{condition.draw}", partial(_answered, *about)))
    answers = pl.concat(frames)
    return Result({"answering": table_of(answers, options), "answers": answers}, tuple(notes))


@dataclass(frozen=True)
class _Asked:
    """All questions of a file, and those that are asked."""

    all: list[Question]
    chosen: list[Question]


def _asked(files: Mapping[str, str | Path], options: AnsweringOptions) -> dict[str, _Asked]:
    if not files:
        raise TextError("No file of questions was given. Expected one for each language, in SQuAD's format.")
    read = {language: read_squad(path) for language, path in files.items()}
    asked = {tag(language): _Asked(found, spread(found, options.questions)) for language, found in read.items()}
    if len(asked) != len(files):
        raise TextError(f"A language is named twice among {', '.join(files)}.")
    return asked


def _runs(
    model: Any,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    languages: Mapping[str, Any],
    steer: SteerOptions,
    options: AnsweringOptions,
) -> tuple[list[tuple[str, Condition]], list[str]]:
    runs: list[tuple[str, Condition]] = []
    notes = []
    for language in languages:
        if not has_frame(language):
            notes.append(
                f"{language} has no words of its own for passage, question and answer: English ones were used."
            )
        found, why = conditions(model, neurons, stats, language, steer=steer, draws=options.draws, seed=options.seed)
        runs += [(language, condition) for condition in (NONE, *found)]
        notes += why
    return runs, notes


def _prompts(tokenizer: Any, language: str, asked: _Asked, options: AnsweringOptions) -> list[str]:
    return [
        passage_prompt(tokenizer, one, language, shots_for(one, asked.all, options.shots, options.seed))
        for one in asked.chosen
    ]


def _check_fits(model: Any, tokenizer: Any, language: str, prompts: Sequence[str], options: AnsweringOptions) -> None:
    longest = max(len(prompt_ids(tokenizer, prompt)) for prompt in prompts) + options.new_tokens
    most = getattr(text_config(model), "max_position_embeddings", None)
    if isinstance(most, int) and longest > most:
        raise OptionError(
            f"The longest question of {language} takes {longest} tokens with its passage, {options.shots} shots and {options.new_tokens} new tokens; "
            f"the model has {most} positions. Lower shots or new_tokens, or leave long passages out."
        )


def _answered(
    model: Any,
    tokenizer: Any,
    language: str,
    condition: Condition,
    asked: Sequence[Question],
    prompts: Sequence[str],
    options: AnsweringOptions,
) -> pl.DataFrame:
    """The questions of a language, answered in a condition: `ANSWERS`."""
    with condition.on(model):
        written = _written(model, tokenizer, prompts, options)
    return _judged(language, condition, asked, written)


def _written(model: Any, tokenizer: Any, prompts: Sequence[str], options: AnsweringOptions) -> list[str]:
    """The first line of each answer; prompts of like length run together, so that little is padding."""
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    found = generate(model, tokenizer, [prompts[k] for k in order], options)
    return [first_line(answer) for _, answer in sorted(zip(order, found, strict=True))]


def _judged(language: str, condition: Condition, asked: Sequence[Question], written: Sequence[str]) -> pl.DataFrame:
    rows = [
        {
            "language": language,
            "condition": condition.name,
            "draw": condition.draw,
            "id": question.id,
            "number": question.number,
            "passage": question.passage,
            "question": question.text,
            "accepted": question.answers[0],
            "answer": answer,
            **overlap(answer, question.answers)._asdict(),
            "energy_ratio": condition.energy_ratio,
        }
        for question, answer in zip(asked, written, strict=True)
    ]
    return pl.DataFrame(rows, schema=ANSWERS)


def table_of(answers: pl.DataFrame, options: AnsweringOptions) -> pl.DataFrame:
    """Mean scores with intervals; columns: `TABLE`. Passages of one number share their resamples over all languages."""
    drawn = Resamples(int(answers["passage"].max()) + 1, options.resamples, options.seed)  # type: ignore[arg-type]
    rows = []
    for at, (language, mine) in enumerate(_parts(answers, "language").items()):
        scored = {key: part.sort("number") for key, part in _parts(mine, "condition", "draw").items()}
        base = scored[NONE.name, 0]["f1"]
        # draws of one language say nothing of another's
        below = _below_control(drawn, scored, options.seed + at)
        for (condition, draw), found in scored.items():
            row: dict[str, Any] = dict(zip(TABLE, (*language, condition, draw, len(found)), strict=False))
            for score in SCORES:
                row |= drawn.named(score, _means(drawn, found["passage"], found[score]))
            if condition != NONE.name:
                change = _means(drawn, found["passage"], found["f1"] - base)
                row |= drawn.named("difference_f1", change, quantiles=True)
            if condition == "off" and below is not None:
                row |= drawn.named("below_control", below, quantiles=True)
            row["energy_ratio"] = found["energy_ratio"].first()
            rows.append(row)
    return pl.DataFrame(rows, schema=TABLE)


def _parts(frame: pl.DataFrame, *by: str) -> dict[tuple[Any, ...], pl.DataFrame]:
    return dict(frame.partition_by(*by, as_dict=True, maintain_order=True))


def _below_control(
    drawn: Resamples, scored: Mapping[tuple[Any, ...], pl.DataFrame], seed: int
) -> NDArray[np.float64] | None:
    """(rows,) the mean F1 over draws of control neurons, less that with the set off; None where either is missing."""
    off, controls = scored.get(("off", 0)), [part for key, part in sorted(scored.items()) if key[0] == "control"]
    if off is None or not controls:
        return None
    each = np.stack([_means(drawn, part["passage"], part["f1"]) for part in controls], 1)
    return drawn.crossed_mean(each, seed) - _means(drawn, off["passage"], off["f1"])


def _means(drawn: Resamples, passage: pl.Series, values: pl.Series) -> Floats:
    """(rows,) mean over the questions that were asked."""
    at = passage.to_numpy()
    return drawn.ratio(by_unit(at, values, drawn.count), by_unit(at, np.ones(len(at)), drawn.count))
