"""From judged answers to shares of them: LCB's rates, failures by kind, and what changes between conditions, with intervals over questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from lape.data.language_id import base
from lape.experiments.confusion.answers import GIVEN
from lape.measure.answer_failures import KINDS
from lape.measure.bootstrap import FEWEST, Floats, Resamples
from lape.measure.intervals import ENDS, wilson
from lape.measure.language_confusion import ALL, WORD_LANGUAGES

JUDGED = {
    **GIVEN,
    **dict.fromkeys(("kind", "identified", "span", "span_language", "reasoning_language"), pl.String),
    **dict.fromkeys(("skipped", "line_passed", "word_passed", "script_switched"), pl.Boolean),
}
"""`GIVEN`, with what is judged of each answer: how it fails (`kind`; null where it does not: see `lape.measure.answer_failures`), the language that it seems to
be in (`identified`), the longest stretch in another language (`span`) and which that is (`span_language`), the language of its reasoning. And by LCB's
rule whether it is `skipped`, whether all lines are in the language (`line_passed`; null where it is skipped), whether it holds no English word
(`word_passed`; null in Latin letters and where a line is wrong), and whether more letters are of other scripts (`script_switched`).
"""
KEYS = ("condition", "task", "source", "language")
_RATES = ("lpr", "wpr", "failing")
RATES = {
    **dict.fromkeys(KEYS, pl.String),
    **dict.fromkeys(("answers", "questions", "seeds"), pl.Int64),
    **{f"{rate}{end}": pl.Float64 for rate in _RATES for end in ENDS},
    **dict.fromkeys(
        (*KINDS, "skipped", "script_switched", "reasoning_right", "lpr_floor", "failing_floor"), pl.Float64
    ),
}
"""A row per condition, task, source and language, and as in LCB their means: `all` is what a row is averaged over. `lpr`, `wpr`: LCB's. `failing`: the
share of answers that fail in any way, and by kind: shares of all answers, each counted in the first way that holds. `skipped`, `script_switched`: shares
that LCB passes over. `reasoning_right`: of answers with reasoning, the share whose reasoning is in the language. `lpr_floor`, `failing_floor`: the
largest less the smallest of the seeds, the noise under which no difference means anything; null for one seed. `_low`, `_high`: 95 % bootstrap over
questions, jointly over languages, tasks and conditions; null under 20 questions. Where all resamples are alike, as where nothing fails, the value and as
far from it as the upper end of Wilson's interval of none.
"""
CHANGES = {
    **dict.fromkeys(("condition", "than", "task", "language"), pl.String),
    "questions": pl.Int64,
    **{f"{rate}_change{end}": pl.Float64 for rate in ("lpr", "failing") for end in ENDS},
}
"""A row per condition, but for the first, task and language (and `all`): its rates less those of `than`, on the `questions` that both were asked."""
NONE, LINE = "none", "line"
"""What the unedited model, and the line in its prompt, are called beside edits."""
SHIPPED = ("adapter", "both")
"""Families of cures that need an adapter."""
EDITS = pl.col("family").is_in(SHIPPED)
CURES = {
    **dict.fromkeys(("family", "setting"), pl.String),
    "line": pl.Boolean,
    "sets": pl.String,
    "strength": pl.Float64,
    "head": pl.String,
    **dict.fromkeys(("factor", "wrong_mass", "kl"), pl.Float64),
    "kl_answers": pl.Int64,
    "kept_kl": pl.Float64,
    "kept_worst": pl.String,
    "within": pl.Boolean,
    "answers": pl.Int64,
    **dict.fromkeys(("failing", "reported_failing", *(f"gain{end}" for end in ENDS)), pl.Float64),
    **dict.fromkeys(("chosen", "used"), pl.Boolean),
}
"""A row per thing that was tried as a cure: its `family` (none, prompt, adapter, both) and `setting`, whether a `line` is told, which `sets` of neurons are
raised at which `strength`, and which attention `head` (layer.head) is multiplied by which `factor`. Of edits, from the screening: `wrong_mass` (mean
probability that the beginnings of answers are in another language), `kl` (KL divergence from the unedited model on `kl_answers` of its right answers, nats
a token, with the line on both sides where there is one; null where there are none, or it is infinite), `kept_kl` (the largest of the languages that are
kept, `kept_worst`), and whether both are `within` their bounds. Of what answered: `answers` and the share `failing` on the half that is chosen on, and
`reported_failing` on the other (null where it was not asked there). `gain`: there, of edits, its failures less those of the better of line and unedited
model, with 95 % interval over questions. `chosen`: the best of its family. `used`: what is to be used.
"""
_FEWEST = 5
"""Questions that each of the rates needs whose mean has an interval; all of them together need 20."""
_MOST = 40_000_000
"""Weights that are held at once: with very many questions there are fewer resamples."""


class _Drawn:
    """Rates of groups of answers, (rows,) each as `Resamples` draws the questions."""

    def __init__(self, judged: pl.DataFrame, resamples: int, seed: int) -> None:
        names = judged["question"].unique(maintain_order=True)
        self.place = dict(zip(names, range(len(names)), strict=True))
        self.drawn = Resamples(len(names), min(resamples, max(100, _MOST // len(names))), seed)

    def rate(self, frame: pl.DataFrame, holds: pl.Expr, of: pl.Expr) -> Floats:
        """Σ holds / Σ of, over answers."""
        each = frame.group_by("question", maintain_order=True).agg(
            (holds & of).sum().alias("amount"), of.sum().alias("size")
        )
        at = np.array([self.place[one] for one in each["question"]], np.int64)
        amount, size = (each[name].to_numpy().astype(np.float64) for name in ("amount", "size"))
        return self.drawn.ratio(amount, size, at=at, fewest=_FEWEST)

    def lpr(self, frame: pl.DataFrame) -> Floats:
        return _or_one(self.rate(frame, pl.col("line_passed").fill_null(False), ~pl.col("skipped")))

    def wpr(self, frame: pl.DataFrame) -> Floats:
        clean = pl.col("line_passed").fill_null(False)
        return _or_one(self.rate(frame, pl.col("word_passed").fill_null(False), clean))

    def failing(self, frame: pl.DataFrame) -> Floats:
        return self.rate(frame, pl.col("kind").is_not_null(), pl.col("answer").is_not_null())


def _or_one(rates: Floats) -> Floats:
    """LCB's rate where nothing was judged is 1; it has no interval."""
    return np.concatenate([[1.0], rates[1:]]) if np.isnan(rates[0]) else rates


@dataclass(frozen=True)
class _Cell:
    """What is said of a group of answers, or of the mean over groups."""

    answers: int
    questions: frozenset[str]
    drawn: Mapping[str, Floats]
    """Rates with their resamples; no `wpr` in Latin letters."""
    plain: Mapping[str, float | None]
    """Shares without."""
    seeds: Mapping[int, Mapping[str, float]]
    """Seed -> `lpr` and `failing` of it alone."""
    unseen: float
    """What a share may be of which nothing was seen in as many questions: Wilson's upper end."""

    @classmethod
    def of(cls, drawn: _Drawn, frame: pl.DataFrame, language: str) -> _Cell:
        questions = frozenset(frame["question"])
        three = {"lpr": drawn.lpr(frame), "failing": drawn.failing(frame)}
        if base(language) in WORD_LANGUAGES:
            three["wpr"] = drawn.wpr(frame)
        plain: dict[str, float | None] = {kind: _share(frame["kind"] == kind) for kind in KINDS}
        plain |= {name: _share(frame[name]) for name in ("skipped", "script_switched")}
        thought = frame.filter(pl.col("reasoning").is_not_null())
        right = thought["reasoning_language"] == base(language)
        plain["reasoning_right"] = _share(right) if len(thought) else None
        seeds = {
            int(one): {"lpr": _lpr(some), "failing": _share(some["kind"].is_not_null())}
            for (one,), some in frame.group_by("seed", maintain_order=True)
        }
        return cls(len(frame), questions, three, plain, seeds, unseen(len(questions)))

    @classmethod
    def mean(cls, cells: Sequence[_Cell]) -> _Cell:
        """The mean over groups of each rate that they have."""
        answers = sum(one.answers for one in cells)
        questions = frozenset[str]().union(*(one.questions for one in cells))
        three = {}
        for name in _RATES:
            if some := [one.drawn[name] for one in cells if name in one.drawn]:
                three[name] = np.mean(some, axis=0)
        plain = {name: _average(one.plain[name] for one in cells) for name in cells[0].plain}
        shared = set.intersection(*(set(one.seeds) for one in cells))
        seeds = {
            k: {name: float(np.mean([one.seeds[k][name] for one in cells])) for name in ("lpr", "failing")}
            for k in sorted(shared)
        }
        return cls(answers, questions, three, plain, seeds, float(np.mean([one.unseen for one in cells])))

    def row(self, drawn: Resamples) -> dict[str, Any]:
        counts = {"answers": self.answers, "questions": len(self.questions), "seeds": len(self.seeds)}
        row: dict[str, Any] = {**counts, **self.plain}
        for name in ("lpr", "failing"):
            each = [one[name] for one in self.seeds.values()]
            row[f"{name}_floor"] = max(each) - min(each) if len(each) > 1 else None
        for name in _RATES:
            row |= self.named(drawn, name, self.drawn.get(name), least=0.0)
        return row

    def named(self, drawn: Resamples, name: str, values: Floats | None, least: float) -> dict[str, Any]:
        """A rate, or a change of one from `least` to 1, with its interval, which it has not under 20 questions.

        Resamples of questions that are all alike are all alike too, which is no certainty: then the interval reaches as far from the value as a share may be
        of which nothing was seen.
        """
        if values is None:
            return dict.fromkeys(f"{name}{end}" for end in ENDS)
        value, low, high = drawn.interval(values)
        if len(self.questions) < FEWEST:
            low = high = None
        elif value is not None and low == high == value:
            low, high = max(value - self.unseen, least), min(value + self.unseen, 1.0)
        return dict(zip((f"{name}{end}" for end in ENDS), (value, low, high), strict=True))


def unseen(questions: int) -> float:
    """What a share may be of which nothing was seen in as many questions: the upper end of Wilson's 95 % interval."""
    high = wilson(0, questions).interval[2]
    return 1.0 if high is None else high


def failing_share(judged: pl.DataFrame) -> tuple[int, int, float | None, float | None]:
    """How many of all answers fail, of how many, and the 95 % interval of that share; None under 20 questions.

    Unlike `failing` of `RATES` no mean over sources and languages. The interval is Wilson's, with as many answers as would give the variance over
    questions: answers to the same question, as of several seeds, are not independent (Kish 1965, the design effect).

    Example:
        >>> import polars as pl
        >>> from lape.experiments.confusion.table import failing_share
        >>> judged = pl.DataFrame({"question": [str(k) for k in range(20)], "kind": ["empty"] * 5 + [None] * 15}, schema_overrides={"kind": pl.String})
        >>> failing_share(judged)[:2], [round(end, 2) for end in failing_share(judged)[2:]]
        ((5, 20), [0.11, 0.47])
    """
    each = judged.group_by("question").agg(pl.col("kind").count().alias("fail"), pl.len().alias("size"))
    fail, size = (each[name].to_numpy().astype(np.float64) for name in ("fail", "size"))
    failing, answers, questions = int(fail.sum()), len(judged), len(each)
    if questions < FEWEST:
        return failing, answers, None, None
    share = failing / answers
    variance = float(((fail - share * size) ** 2).sum()) * questions / (questions - 1) / answers**2
    alone = share * (1 - share) / variance if variance else float(answers if 0 < share < 1 else questions)
    units = min(alone, answers)
    _, low, high = wilson(share * units, units).interval
    return failing, answers, low, high


def _share(holds: pl.Series) -> float:
    return float(holds.fill_null(False).mean() or 0.0)  # type: ignore[arg-type]


def _lpr(frame: pl.DataFrame) -> float:
    judged = frame["line_passed"].drop_nulls()
    return float(judged.mean()) if len(judged) else 1.0  # type: ignore[arg-type]


def _average(values: Iterable[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known else None


_Cells: TypeAlias = Mapping[tuple[str, str], _Cell]
"""(source, language) -> what is said of it."""


def _cells(drawn: _Drawn, frame: pl.DataFrame) -> dict[tuple[str, str], _Cell]:
    """(source, language) -> what is said of it, and of LCB's means: over a source's languages, a language's sources, and over the languages' means."""
    cells = {
        (str(source), str(language)): _Cell.of(drawn, some, str(language))
        for (source, language), some in frame.group_by("source", "language", maintain_order=True)
    }
    sources, languages = (list(dict.fromkeys(key[at] for key in cells)) for at in (0, 1))
    means = {(source, ALL): _Cell.mean([one for key, one in cells.items() if key[0] == source]) for source in sources}
    by_language = {
        (ALL, language): _Cell.mean([one for key, one in cells.items() if key[1] == language]) for language in languages
    }
    return {**cells, **means, **by_language, (ALL, ALL): _Cell.mean([*by_language.values()])}


def rates(judged: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Shares of judged answers, `JUDGED`: `RATES`, and what changes from the first condition to the others: `CHANGES`.

    Example:
        >>> import polars as pl
        >>> from lape.experiments.confusion.run import scored
        >>> given = [{"language": "fr", "source": "mine", "answer": "Le ciel est bleu."}, {"language": "fr", "source": "mine", "answer": ""}]
        >>> scored(pl.DataFrame(given))["confusion"].filter(source="mine", language="fr").select("lpr", "failing", "empty").rows()
        [(1.0, 0.5, 0.5)]
    """
    drawn = _Drawn(judged, resamples, seed)
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, str], _Cells] = {}
    frames: dict[tuple[str, str], pl.DataFrame] = {}
    for (condition, task), frame in judged.group_by("condition", "task", maintain_order=True):
        key = str(condition), str(task)
        cells, frames[key] = _cells(drawn, frame), frame
        found[key] = cells
        for (source, language), cell in cells.items():
            row = dict(zip(KEYS, (condition, task, source, language), strict=True))
            rows.append(row | cell.row(drawn.drawn))
    return pl.DataFrame(rows, schema=RATES), pl.DataFrame([*_changes(drawn, found, frames)], schema=CHANGES)


def _paired(drawn: _Drawn, one: pl.DataFrame, other: pl.DataFrame) -> tuple[_Cells, _Cells]:
    """What is said of two conditions on the questions that both were asked."""
    keys = ["source", "language", "question"]
    mine = one.join(other, on=keys, how="semi", maintain_order="left")
    theirs = other.join(one, on=keys, how="semi", maintain_order="left")
    return (_cells(drawn, mine), _cells(drawn, theirs)) if len(mine) else ({}, {})


def _of(cells: Mapping[tuple[str, str], _Cell], language: str) -> set[tuple[str, str]]:
    """The sources and languages that a row is the mean over."""
    return {key for key in cells if ALL not in key and language in (key[1], ALL)}


def _changes(
    drawn: _Drawn, found: Mapping[tuple[str, str], _Cells], frames: Mapping[tuple[str, str], pl.DataFrame]
) -> Iterator[dict[str, Any]]:
    first = next(iter(found))[0]
    for (condition, task), whole in found.items():
        if condition == first or (first, task) not in found:
            continue
        cells, before = _paired(drawn, frames[condition, task], frames[first, task])
        for (source, language), cell in cells.items():
            other = before.get((source, language))
            if source != ALL or other is None or _of(whole, language) != _of(found[first, task], language):
                continue
            row: dict[str, Any] = {"condition": condition, "than": first, "task": task, "language": language}
            row["questions"] = len(cell.questions)
            for name in ("lpr", "failing"):
                change = cell.drawn[name] - other.drawn[name]
                row |= cell.named(drawn.drawn, f"{name}_change", change, least=-1.0)
            yield row
