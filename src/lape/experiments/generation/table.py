"""From judged answers with neurons off to shares of good ones, their change, and what is the language's own of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from lape.errors import OptionError
from lape.measure.bootstrap import Floats, Resamples
from lape.measure.controlled import likeness, ratio_to_mean
from lape.measure.intervals import ENDS, MEAN, resampled, selectivity

MEASURES = ("good", "in_language", "fluent", "on_topic", "mixed", "grade")
"""What is averaged. Shares are of all answers, but `fluent` and `mixed` of those in the language and `on_topic` of those that are fluent too;
in the language, fluent and on topic multiply to `good` and to what is mixed. `grade` is the mean of those graded.
"""
SHARES = {
    **dict.fromkeys(("off", "language"), pl.String),
    "control": pl.Boolean,
    **dict.fromkeys(("draw", "questions"), pl.Int64),
    **{f"{name}{change}{end}": pl.Float64 for name in MEASURES for change in ("", "_change") for end in ENDS},
}
"""Columns of `shares`."""
ADDED_SHARES = tuple(name for name in SHARES if name.startswith("mixed"))
"""Those that tables of earlier versions lack."""
_FALLS = ("own", "others", "selectivity", "control", "control_others", "others_value")
DROPS = {
    "language": pl.String,
    **dict.fromkeys(("questions", "draws"), pl.Int64),
    **{f"own{end}": pl.Float64 for end in ENDS},
    **resampled("others"),
    **{f"{name}{end}": pl.Float64 for name in _FALLS[2:] for end in ENDS},
    "control_largest": pl.Float64,
    "worst_other": pl.String,
    **{f"worst{end}": pl.Float64 for end in ENDS},
    "control_there": pl.Float64,
    "turned_to": pl.String,
    **dict.fromkeys(("turned", "control_turned", "energy_ratio"), pl.Float64),
    "unlike": pl.String,
    **resampled("value", plain=True),
}
"""Columns of `drops`."""
_LATER = (
    "control_others",
    "others_value",
    "worst",
    "control_there",
    "turned",
    "control_turned",
    "energy_ratio",
    "unlike",
)
ADDED_DROPS = tuple(name for name in DROPS if name.startswith(_LATER))
"""Those that tables of earlier versions lack."""

_Key = tuple[str, str, bool, int]
"""Whose neurons were off, language asked in, control or not, draw."""


class _Drawn:
    """Means over the questions, (rows,) as `Resamples` draws them, the same ones in every cell."""

    def __init__(self, answers: pl.DataFrame, resamples: int, seed: int) -> None:
        if not len(answers):
            raise OptionError("There are no answers. Expected the table that lape.experiments.generation.run gives.")
        parts = answers.partition_by("off", "language", "control", "draw", as_dict=True, maintain_order=True)
        self.cells: dict[_Key, pl.DataFrame] = {
            (str(off), str(language), bool(control), int(draw)): frame
            for (off, language, control, draw), frame in parts.items()
        }
        self._drawn = Resamples(int(answers["question"].max()) + 1, resamples, seed)  # type: ignore[arg-type]
        self.named, self.plain = self._drawn.named, self._drawn.plain
        self._kept: dict[tuple[_Key, str], Floats] = {}

    def mean(self, key: _Key, measure: str) -> Floats:
        """A measure in a cell; not a number where nothing is in it, and in all resamples where it is of under 20 questions."""
        if (key, measure) not in self._kept:
            amount, size = np.zeros((2, self._drawn.count))
            at = self.cells[key]["question"].to_numpy()
            amount[at], size[at] = _amount(self.cells[key], measure)
            self._kept[key, measure] = self._drawn.ratio(amount, size)
        return self._kept[key, measure]

    def drop(self, key: _Key, measure: str) -> Floats:
        """How much lower than unedited, on the same questions of the same language."""
        fallen: Floats = self.mean(_unedited(key[1]), measure) - self.mean(key, measure)
        return fallen


def _unedited(language: str) -> _Key:
    return "none", language, False, 0


def _amount(frame: pl.DataFrame, measure: str) -> tuple[Floats, Floats]:
    """(questions,) each: what is averaged, and whether it counts."""
    if measure == "grade":
        grade = frame["grade"].cast(pl.Float64)
        return grade.fill_null(0.0).to_numpy(), grade.is_not_null().cast(pl.Float64).to_numpy()
    inside, fluent, holds = (frame[name].fill_null(False).to_numpy() for name in ("in_language", "fluent", measure))
    every = np.ones(len(frame), bool)
    of = {"on_topic": inside & fluent, **dict.fromkeys(("fluent", "mixed"), inside)}.get(measure, every)
    return (holds & of).astype(np.float64), of.astype(np.float64)


def shares(answers: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pl.DataFrame:
    """One row per language off (and none), language asked in, and draw of a control: `SHARES`.

    `answers`: `lape.experiments.generation.run.ANSWERS`. Each of `MEASURES`, 0 to 1 (`grade`: 1 to 10), and its `_change` against none on
    the same questions; `_low`, `_high`: 95 % bootstrap over questions, jointly over languages and conditions, paired
    for a change. No interval where a measure is of under 20 questions; null where there is nothing to measure.

    Example:
        >>> import polars as pl
        >>> from lape.experiments.generation.run import ANSWERS
        >>> from lape.experiments.generation.table import shares
        >>> row = {"language": "fr", "control": False, "draw": 0, "question": 0, "in_language": True, "fluent": True}
        >>> answers = [row | {"off": "none", "good": True}, row | {"off": "fr", "good": False}]
        >>> shares(pl.DataFrame(answers, schema=ANSWERS))["good"].to_list()
        [1.0, 0.0]
    """
    drawn = _Drawn(answers, resamples, seed)
    rows = []
    for key, frame in drawn.cells.items():
        row: dict[str, Any] = dict(zip(("off", "language", "control", "draw"), key, strict=True))
        row["questions"] = len(frame)
        for measure in MEASURES:
            row |= drawn.named(measure, drawn.mean(key, measure))
            if key[0] != "none":
                row |= drawn.named(f"{measure}_change", 0.0 - drawn.drop(key, measure))
        rows.append(row)
    return pl.DataFrame(rows, schema=SHARES)


def drops(
    answers: pl.DataFrame,
    *,
    measure: str = "good",
    over: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pl.DataFrame:
    """One row per language that was switched off, and one of their mean, over the languages `over` (default: all): `DROPS`.

    - `own`: how far the measure falls in the language when its neurons are off, a share (or grades), net of answers that get better; `others`: the mean
      fall in the other languages; `worst`: that in the other language that loses most, `worst_other`; `selectivity`: own / (own + others), both clipped at 0.
    - `control`: the mean fall when matched neurons are off instead, over `draws`, and `control_largest`; `control_others`, `control_there`: that in the other
      languages, and in `worst_other`; `value`: own − control, and `others_value`: others − control_others, the falls that are not just any neurons'.
      `energy_ratio`: the set's written energy over the mean of its draws', and `unlike`: why it is not within .8 and 1.25.
    - `turned_to`: the language that most answers in another language than the question's are in, `turned` of them with the set off, and `control_turned` with
      matched neurons off: a share of all answers.

    Intervals are over questions, paired over languages and conditions, and where a control is in the value over its draws as well (none where there is a
    single draw); of what claims are judged on, `value` and `others`, also the bootstrap's quantiles. The mean's selectivity is the mean of the languages';
    its control only over languages that have one. Raises OptionError for a measure that there is not.

    Example:
        >>> import polars as pl
        >>> from lape.experiments.generation.run import ANSWERS
        >>> from lape.experiments.generation.table import drops
        >>> row = {"language": "fr", "control": False, "draw": 0, "question": 0, "in_language": True, "fluent": True}
        >>> answers = [row | {"off": "none", "good": True}, row | {"off": "fr", "good": False, "identified": "en"}]
        >>> drops(pl.DataFrame(answers, schema=ANSWERS)).select("own", "turned_to").row(0)
        (1.0, 'en')
    """
    if measure not in MEASURES:
        raise OptionError(f"There is no measure {measure!r}. Expected one of: {', '.join(MEASURES)}.")
    drawn = _Drawn(answers, resamples, seed)
    off = dict.fromkeys(key[0] for key in drawn.cells if key[0] != "none" and not key[2])
    found = {language: _falls(drawn, language, measure) for language in off}
    rows = [
        _row(drawn, language, falls, [falls]) | _elsewhere(drawn, language, measure, falls["each"])
        for language, falls in found.items()
    ]
    averaged = [falls for language, falls in found.items() if over is None or language in over]
    if averaged:
        rows.append(_row(drawn, MEAN, _averaged(averaged), averaged))
    return pl.DataFrame(rows, schema=DROPS)


def _falls(drawn: _Drawn, language: str, measure: str) -> dict[str, Floats]:
    """(rows,) each; `controls` and `controls_others` (rows, draws); `each` (rows, other languages)."""
    keys = sorted(key for key in drawn.cells if key[0] == language)  # draws in order: the mean pairs those of languages
    draws = sorted({key[3] for key in keys if key[2]})
    own = drawn.drop((language, language, False, 0), measure)
    nothing = np.full_like(own, np.nan)

    def fallen(*, draw: int | None, here: bool) -> Floats:
        """(rows, languages)"""
        some = [key for key in keys if key[2:] == (draw is not None, draw or 0) and (key[1] == language) == here]
        return np.stack([drawn.drop(key, measure) for key in some], 1) if some else nothing[:, None]

    def of_draws(*, here: bool) -> Floats:
        """(rows, draws): the mean over languages."""
        some = [fallen(draw=draw, here=here).mean(1) for draw in draws]
        return np.stack(some, 1) if some else np.empty((len(own), 0))

    def mean(by_draw: Floats) -> Floats:
        return by_draw.mean(1) if draws else nothing

    each, controls, controls_others = fallen(draw=None, here=False), of_draws(here=True), of_draws(here=False)
    others, control, control_others = each.mean(1), mean(controls), mean(controls_others)
    known = np.isfinite(own) & np.isfinite(others)
    return {
        "own": own,
        "others": others,
        "selectivity": np.where(known, selectivity(own, others), np.nan),
        "control": control,
        "control_others": control_others,
        "value": own - control,
        "others_value": others - control_others,
        "controls": controls,
        "controls_others": controls_others,
        "each": each,
    }


def _averaged(falls: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """The mean over languages, of each that has the value."""
    result = {}
    for name in (*_FALLS, "value"):
        known = [one[name] for one in falls if np.isfinite(one[name][0])]
        result[name] = np.mean(known, 0) if known else np.full_like(falls[0][name], np.nan)
    controls = [one["controls"] for one in falls if one["controls"].shape[1]]
    draws = min((some.shape[1] for some in controls), default=0)
    result["controls"] = np.mean([some[:, :draws] for some in controls], 0) if draws else falls[0]["controls"]
    return result


def _draws(name: str, averaged: Sequence[dict[str, Floats]]) -> list[Floats]:
    """What each draw of each language's control adds to the mean over languages of a value that holds it."""
    by_draw = {"control": "controls", "value": "controls"}
    by_draw |= {"control_others": "controls_others", "others_value": "controls_others"}
    known = [falls for falls in averaged if np.isfinite(falls[name][0])]
    return [falls[by_draw[name]][0] / len(known) for falls in known] if name in by_draw else []


def _row(
    drawn: _Drawn, language: str, falls: dict[str, Floats], averaged: Sequence[dict[str, Floats]]
) -> dict[str, Any]:
    controls = falls["controls"]
    largest = float(controls[0].max()) if controls.shape[1] else float("nan")
    row: dict[str, Any] = {
        "language": language,
        "questions": len(next(iter(drawn.cells.values()))),
        "draws": controls.shape[1],
        "control_largest": largest if np.isfinite(largest) else None,
        **drawn.plain("value", falls["value"], quantiles=True, draws=_draws("value", averaged)),
    }
    for name in _FALLS:
        row |= drawn.named(name, falls[name], quantiles=name == "others", draws=_draws(name, averaged))
    return row


def _elsewhere(drawn: _Drawn, language: str, measure: str, each: Floats) -> dict[str, Any]:
    """Of one language: the other that loses most, the language that answers turn to, and how strong its control is. `each`: (rows, other languages)."""
    controls = [key for key in drawn.cells if key[0] == language and key[2]]
    others = sorted(key[1] for key in drawn.cells if key[0] == language != key[1] and not key[2])
    row: dict[str, Any] = {}
    if others and np.isfinite(each[0]).all():
        worst = others[int(each[0].argmax())]
        there = [float(drawn.drop(key, measure)[0]) for key in controls if key[1] == worst]
        row |= {"worst_other": worst, **drawn.named("worst", each.max(1))}
        row["control_there"] = float(np.mean(there)) if there else None
    own, of_controls = (language, language, False, 0), [key for key in controls if key[1] == language]
    elsewhere = drawn.cells[own].filter(pl.col("identified") != language)["identified"]
    if len(elsewhere):
        to = elsewhere.value_counts().sort(["count", "identified"], descending=[True, False])["identified"][0]
        turned, *in_controls = (
            float((drawn.cells[key]["identified"] == to).fill_null(False).mean()) for key in (own, *of_controls)
        )
        row |= {
            "turned_to": to,
            "turned": turned,
            "control_turned": float(np.mean(in_controls)) if in_controls else None,
        }
    ratios = [ratio for key in of_controls if (ratio := drawn.cells[key]["energy_ratio"][0]) is not None]
    return row | likeness(ratio_to_mean(ratios))
