"""One thought, which cure is to be used: chosen on one half of the questions, and told from chance on the other."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lape.errors import TextError
from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.table import CURES, EDITS, NONE
from lape.measure.bootstrap import FEWEST, Resamples
from lape.measure.intervals import ENDS

NEEDED = 2 * FEWEST
"""Different questions without which nothing can be chosen and tested."""


def questions(prompts: Sequence[Prompt]) -> list[str]:
    """The names of the different questions."""
    return [*dict.fromkeys(prompt.question for prompt in prompts)]


def halves(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of every other question, to choose on, and those of the others, to report on. Raises TextError where there are too few to tell."""
    names = questions(prompts)
    if len(names) < NEEDED:
        raise TextError(
            f"There are {len(names)} different questions in the language. Expected at least {NEEDED}: the settings are chosen on one half and tested on "
            f"the other, and fewer than {FEWEST} test questions cannot tell a cure from luck. Rephrasings of a question count once."
        )
    chosen = set([*names][::2])
    return [one for one in prompts if one.question in chosen], [one for one in prompts if one.question not in chosen]


def chosen(table: pl.DataFrame) -> pl.DataFrame:
    """What was tried, with the best of each family marked: the fewest failures, then the smallest KL divergence."""
    best = set()
    for (_family,), some in table.filter(pl.col("failing").is_not_null()).group_by("family", maintain_order=True):
        best.add(some.sort("failing", "kl", nulls_last=False, maintain_order=True)["setting"][0])
    return table.with_columns(pl.col("setting").is_in([*best]).alias("chosen"))


def used(table: pl.DataFrame, judged: pl.DataFrame, resamples: int = 2000) -> pl.DataFrame:
    """What was tried, with what is to be used marked: the family with the fewest failures where it was chosen, if on the other half too it fails less than
    what needs no adapter, by more than chance; else the line, if it fails less on the first half and no more on the other; else nothing.
    """
    first = table.filter("chosen")
    shares = judged.group_by("condition", maintain_order=True).agg(pl.col("kind").is_not_null().mean().alias("failing"))
    second = dict(shares.iter_rows())
    plain = first.filter(~EDITS).sort("failing", maintain_order=True)["setting"].to_list()
    edits = first.filter(EDITS)["setting"].to_list()
    against = min(plain, key=lambda one: second[one])
    gains = {one: gain(judged, one, against, resamples) for one in edits}
    best = first.sort("failing", maintain_order=True)["setting"][0]
    high = gains[best]["gain_high"] if best in gains else None
    steady = (
        plain[0] if second[plain[0]] <= second[plain[-1]] else NONE
    )  # a line that is worse on the other half is none
    name = best if high is not None and high < 0 else steady
    of = pl.col("setting")
    columns = [
        of.replace_strict(second, default=None, return_dtype=pl.Float64).alias("reported_failing"),
        *(
            of.replace_strict(
                {one: row[key] for one, row in gains.items()}, default=None, return_dtype=pl.Float64
            ).alias(key)
            for key in (f"gain{end}" for end in ENDS)
        ),
    ]
    return table.with_columns(*columns, (of == name).alias("used")).select(*CURES)


def gain(judged: pl.DataFrame, ours: str, theirs: str, resamples: int) -> dict[str, float | None]:
    """The share of answers that fail in one condition less that in another, paired over questions, with its interval."""
    each = (
        judged.filter(pl.col("condition").is_in([ours, theirs]))
        .group_by("question", maintain_order=True)
        .agg(
            *(
                (pl.col("kind").is_not_null() & (pl.col("condition") == one)).sum().alias(name)
                for name, one in (("a", ours), ("b", theirs))
            ),
            (pl.col("condition") == ours).sum().alias("size"),
        )
    )
    a, b, size = (each[name].to_numpy().astype(float) for name in ("a", "b", "size"))
    drawn = Resamples(len(each), resamples, 0)
    return drawn.named("gain", drawn.ratio(a - b, size))
