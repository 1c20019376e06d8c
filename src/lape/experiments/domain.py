"""Do sets follow the kind of text? Within-domain against cross-domain agreement at equal tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from lape.data.texts import Documents
from lape.detect.detector import Method
from lape.detect.identify import method_named
from lape.detect.stability import UNION, disjoint_groups, has_text, mean_tokens, set_jaccard
from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment
from lape.experiments.table import Table
from lape.figures.captions import counted
from lape.figures.dots import dots
from lape.figures.figure import Figure
from lape.options import Options, Tokens
from lape.recording.record import record
from lape.values.same import check_same_model
from lape.values.stats import ActivationStats

DOMAIN = {
    "language": pl.String,
    "tokens": pl.Int64,
    **dict.fromkeys(("within", "across", "difference", "low", "high"), pl.Float64),
    "draws": pl.Int64,
}
"""Columns of `domain`."""


@dataclass(frozen=True)
class DomainStudy(Options):
    """What of it a study sets."""

    domain_tokens: Tokens = 10_000
    """Tokens of each language's parallel text that are recorded, as the other kind of text."""


def domain(a: ActivationStats, b: ActivationStats, find: Method, *, seed: int = 0) -> pl.DataFrame:
    """Do sets follow the kind of text? Within-domain minus cross-domain Jaccard at equal tokens.

    `a` and `b`: statistics of one model on two domains; `find`: a method with its options, such as
    `functools.partial(lape, rate=0.02)`. In each draw two disjoint groups of folds of each domain are taken, of as
    nearly equal tokens as folds allow; `within` is the mean Jaccard of the two groups of a domain, `across` that of the four pairs
    over domains. `low`, `high`: 5th and 95th percentile of the difference over draws of folds (a spread, not a confidence
    interval). Only languages in both: others are left out before sets are found, since a set depends on the languages compared.

    Ours. One row per language and one, `all`, for the union: `language`, `tokens` (of a group, on average over languages), `within`, `across`,
    `difference` (Jaccards, 0 to 1, means over draws), `low`, `high`, `draws` (those in which the set had 20 neurons or more; null where that was
    less than half of them).

    Raises MismatchError for statistics of two models, OptionError for fewer than two languages or folds in common.

    Example:
        >>> from functools import partial
        >>> from lape.detect.lap import lap
        >>> from lape.experiments.domain import domain
        >>> other = lape.ActivationStats.load("run")  # of the same model and languages, on other text
        >>> table = domain(stats, other, partial(lap, per_language=20))
        >>> table["language"].to_list()
        ['en', 'fr', 'id', 'zh', 'all']
    """
    a, b = _comparable(a, b)
    few, many = _equal_folds(a, b)
    draws: dict[str, list[tuple[float, float]]] = {}
    shared = a.languages
    ways = zip(disjoint_groups(a.folds, few, seed), disjoint_groups(b.folds, many, seed + 1), strict=False)
    count = 0
    for (a1, a2), (b1, b2) in ways:
        if not all(has_text(stats, half) for stats, half in ((a, a1), (a, a2), (b, b1), (b, b2))):
            continue
        count += 1
        found = (find(a, folds=a1), find(a, folds=a2))
        others = (find(b, folds=b1), find(b, folds=b2))
        for language in [*shared, UNION]:
            inside = [set_jaccard(one, other, language) for one, other in (found, others)]
            across = [set_jaccard(one, other, language) for one in found for other in others]
            if None not in inside and None not in across:
                pair = (float(np.mean(inside)), float(np.mean(across)))  # type: ignore[arg-type]
                draws.setdefault(language, []).append(pair)
    tokens = round(mean_tokens(a) * few / a.folds)
    rows = [_domain_row(language, tokens, draws.get(language, []), count) for language in [*shared, UNION]]
    return pl.DataFrame(rows, schema=DOMAIN)


def _comparable(a: ActivationStats, b: ActivationStats) -> tuple[ActivationStats, ActivationStats]:
    """Both with the languages they share, in one order; refused where they cannot be compared."""
    check_same_model(statistics=a, others=b)
    shared = [language for language in a.languages if language in b.languages]
    if len(shared) < 2 or min(a.folds, b.folds) < 2:
        raise OptionError(
            f"The two domains share {len(shared)} languages, and were counted in {a.folds} and {b.folds} folds. "
            "Comparing them needs two languages and two folds: record the same languages in both."
        )
    return tuple(  # type: ignore[return-value]
        ActivationStats(stats.space, {language: stats.by_language[language] for language in shared}, stats.manifest)
        for stats in (a, b)
    )


def _equal_folds(a: ActivationStats, b: ActivationStats) -> tuple[int, int]:
    """How many folds of each make two groups of as many tokens as possible, as nearly equal as folds allow."""
    x, y = mean_tokens(a) / a.folds, mean_tokens(b) / b.folds
    ways = [(i, j) for i in range(1, a.folds // 2 + 1) for j in range(1, b.folds // 2 + 1)]
    near = [way for way in ways if abs(way[0] * x - way[1] * y) <= 0.15 * way[0] * x]
    if near:
        return max(near, key=lambda way: way[0] * x)
    return min(ways, key=lambda way: abs(way[0] * x - way[1] * y) / (way[0] * x))


def _domain_row(language: str, tokens: int, values: list[tuple[float, float]], count: int) -> dict[str, Any]:
    row: dict[str, Any] = {"language": language, "tokens": tokens, "draws": len(values)}
    if len(values) < count / 2 or not values:
        return row
    within, across = np.array(values).T
    low, high = np.quantile(within - across, [0.05, 0.95])
    gap = float(np.mean(within - across))
    means = {"within": float(within.mean()), "across": float(across.mean()), "difference": gap}
    return row | means | {"low": float(low), "high": float(high)}


def _run(context: Context, options: DomainStudy) -> Tables:
    """How far sets from the parallel text's domain agree with those recorded, beside halves of one domain."""
    other = record(
        context.model,
        context.tokenizer,
        {language: Documents(["\n".join(context.lines[language])]) for language in context.languages},
        tokens=options.domain_tokens,
        batch_tokens=context.options.batch_tokens,
        progress=context.progress,
    )
    return {"domain": domain(context.stats, other, method_named("lape"), seed=context.options.seed)}


def _cost(context: Context, options: DomainStudy) -> Cost:
    """Recording the parallel text."""
    return Cost(body_tokens=options.domain_tokens * len(context.languages))


EXPERIMENT = Experiment(
    name="domain",
    title="Kind of text",
    about="whether sets follow the kind of text",
    options=DomainStudy,
    run=_run,
    tables={
        "domain": Table(
            "Jaccard of sets found in two texts of one domain and of two domains, at equal numbers of tokens: means over draws of folds, and the "
            "spread of the difference from the 5th to the 95th percentile over them, which is no confidence interval.",
            DOMAIN,
            ends="spread (5th–95th percentile over draws)",
        )
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure(
            "domain",
            "Sets and the kind of text",
            ("domain",),
            dots("domain", ["language"], "difference", "Jaccard within a domain − across", 0.0),
            counted(
                "domain",
                "Jaccard of sets found in two texts of one domain less that across domains, at equal numbers of tokens.",
                "draws",
                "draws of folds",
                "Lines: 5th to 95th percentile over the draws; a spread, not a confidence interval.",
            ),
        ),
    ),
    claims=beside(__file__),
)
