"""Selection methods compared at equal effect on the language itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lape.data.corpus import TextOptions
from lape.detect.identify import identify
from lape.errors import OptionError
from lape.experiments.claim import beside
from lape.experiments.context import Context, Tables
from lape.experiments.experiment import MODEL, PARALLEL, Cost, Experiment, matrices
from lape.experiments.frontier.figures import frontier as draw
from lape.experiments.frontier.table import ADVANTAGES, AREA, AT_LEVELS, LEVELS, Key, advantages, at_levels, enough
from lape.experiments.table import Table
from lape.figures.captions import sentences
from lape.figures.figure import Figure
from lape.measure.ablation import Ablations, refuse_recorded
from lape.measure.effects import Effects, Sets, effects, matched_sets
from lape.measure.frontier import FRONTIER, MATRIX, frontier, matrix
from lape.measure.intervals import MEAN
from lape.options import NotNegative, Options, Positive, Tokens
from lape.values.neurons import LanguageNeurons

__all__ = ["EXPERIMENT", "advantages", "at_levels"]

QUICK = ("lape", "lap", "lave", "random", "matched")
FULL = (*QUICK, "variation", "difference", "difference:against=largest", "probability", "attribution")
CONTROLS = ("random", "matched")
"""No selection methods: what they do at the largest size stands beside, and they are compared at equal numbers and energy (`controlled`), not at equal effect,
which they do not reach.
"""
PUBLISHED = "lape, published"
"""LAPE's sets under the published rule, of whose own effect the levels are shares."""
_METHODS = {"probability": "difference:of=probability"}
"""Selection methods that are another's with options."""
GROUPS = {"published": ("lape", "lap", "lave", "variation", "random")}
"""Several methods under a name, of which those are compared that the statistics allow: Tang et al. 2024's."""
_HALVED, _DOUBLED = 5, 3
"""How often at most by default: in some models ten neurons do half of what all of a published set do."""


@dataclass(frozen=True)
class FrontierStudy(Options):
    """What of it a study sets."""

    methods: tuple[str, ...] | None = None
    """Selection methods that are compared, with options where wanted (difference:against=largest), or published for those of Tang et al. 2024.
    Default: all that the statistics allow, but for alignment, ap and probability90; with quick, the paper's.
    """
    sizes: tuple[Positive, ...] | None = None
    """Neurons of each language at which every selection method is measured. Default: the mean number of LAPE's published sets and half of it, and from
    there by halves and doubles, five and three at most, until the method's own effects span the levels at which methods are compared in every language.
    """
    finalists: NotNegative = 0
    """How many methods, those of the smallest area beside LAPE, are measured again on other sentences, with LAPE. 0: none."""
    final_tokens: Tokens = 6400
    """Tokens of each language, on average, of these other sentences: about 200 of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sizes is not None and not self.sizes:
            raise OptionError("sizes must name at least one number of neurons, each 1 or more.")

    def wanted(self, quick: bool) -> Sequence[str]:
        """The methods that were asked for, or those that are compared by default."""
        asked = self.methods or (QUICK if quick else FULL)
        return list(dict.fromkeys(one for name in asked for one in GROUPS.get(name, (name,))))

    def sizes_of(self, method: str, context: Context) -> list[int]:
        """The sizes at which a method is measured, from the smallest; by default those to begin with."""
        mean = sum(map(len, context.neurons.values())) / len(context.neurons)
        sizes = sorted(self.sizes or {max(1, round(mean / 2)), max(1, round(mean))})
        return sizes[-1:] if method in CONTROLS else sizes[-2:] if context.options.quick else sizes


def _run(context: Context, options: FrontierStudy) -> Tables:
    """Own against others at equal numbers of neurons, and who disturbs the others less at equal own effect."""
    sets, reference = _sets(context, options)
    measured, shared = effects(context.work, sets, context.languages, context.progress), context.options
    tables = {
        "frontier": frontier(measured, context.over, shared.resamples, shared.seed),
        "frontier_matrix": matrix(measured, shared.resamples, shared.seed),
        **_compared(context, measured, reference),
    }
    if options.finalists:
        best = _best(tables["advantages"], options.finalists)
        kept = {key: found for key, found in sets.items() if key[0] in best or key == reference}
        work = _other_sentences(context, options)
        again = _compared(context, effects(work, kept, context.languages, context.progress), reference)
        tables |= {"final_levels": again["levels"], "final_advantages": again["advantages"]}
        context.note("frontier", f"finalists, by area: {', '.join(best)}")
    return tables


def _compared(context: Context, measured: Effects, reference: Key) -> dict[str, pl.DataFrame]:
    how: dict[str, Any] = {
        "reference": reference,
        "resamples": context.options.resamples,
        "seed": context.options.seed,
    }
    methods = [method for method in measured.methods if method not in (*CONTROLS, PUBLISHED)]
    pairs = [
        advantages(measured, method, methods, context.over, **how)
        for method in methods
        if method == methods[0] or method == "lape"
    ]
    levels = at_levels(measured, context.over, **how).filter(pl.col("method").is_in(methods))
    table = pl.concat(pairs)
    for row in table.filter(language=MEAN, at=AREA).iter_rows(named=True):
        if not enough(row["languages"], len(context.over)):
            both, of = f"{row['method']} and {row['against']}", len(context.over)
            said = f"{both} reach equal own effects in {row['languages']} of {of} languages: their mean has no interval"
            context.note("frontier", said)
    return {"levels": levels, "advantages": table}


def _best(table: pl.DataFrame, count: int) -> list[str]:
    """LAPE, or what the methods are compared with, and the methods that disturb others least beside it, over the whole of the levels."""
    mean = table.filter(language=MEAN, at=AREA).drop_nulls("difference")
    first = table["method"][0]
    return [first, *mean.filter(method=first).sort("difference")["against"][:count]]


def _other_sentences(context: Context, options: FrontierStudy) -> Ablations:
    """The model on lines of the parallel text that were not evaluated before, unedited."""
    _, texts = context.spread(options.final_tokens, but=set(context.evaluation[0]))
    text = TextOptions(batch_tokens=context.options.batch_tokens, bos=context.stats.bos)
    folder = context.cells("finalists")
    work = Ablations(context.model, context.tokenizer, texts, text, folder=folder, progress=context.progress)
    refuse_recorded(work.corpora, context.neurons)
    work.base(context.progress)
    return work


def _sets(context: Context, options: FrontierStudy) -> tuple[Sets, Key]:
    """The sets of every method and size, and the published ones."""
    out = left_out(context, options)
    context.left_out |= out
    sets: dict[Key, LanguageNeurons] = {}
    for method in (one for one in options.wanted(context.options.quick) if one not in out):
        for size, found in _by_size(context, options, method).items():
            sets[method, size] = found
            context.note("frontier", *(f"{method}, {size}: {note}" for note in found.notes))
    reference = (PUBLISHED, len(context.neurons.union))
    return {**sets, reference: context.neurons}, reference


def _by_size(context: Context, options: FrontierStudy, method: str) -> dict[int, LanguageNeurons]:
    """A method's sets of the sizes given; or by halves and doubles until its own effects span the levels, as each language's own text alone says."""
    found = {size: selected(context, method, size) for size in options.sizes_of(method, context)}
    if options.sizes is not None or context.options.quick or method in CONTROLS:
        return found
    whole = {language: _own(context, context.neurons, language) for language in context.over}

    def shares(size: int) -> list[float]:
        return [_own(context, found[size], language) / of for language, of in whole.items() if of > 0]

    for _ in range(_HALVED):
        if (smallest := min(found)) > 1 and max(shares(smallest), default=0) > LEVELS[0]:
            found[smallest // 2] = selected(context, method, smallest // 2)
    for _ in range(_DOUBLED):
        if min(shares(largest := max(found)), default=1) < LEVELS[-1]:
            found[2 * largest] = selected(context, method, 2 * largest)
    return dict(sorted(found.items()))


def _own(context: Context, neurons: LanguageNeurons, language: str) -> float:
    """The change of a language's summed loss with its own set off; 0 where there is none."""
    found = neurons.sets.get(language)
    if found is None:
        return 0.0
    return float((context.work.off(found, language).nll - context.work.unedited(language).nll).sum())


def compared(context: Context, options: FrontierStudy) -> list[str]:
    """The methods on the frontier: those that were asked for, or that the statistics allow."""
    out = left_out(context, options)
    return [method for method in options.wanted(context.options.quick) if method not in out]


def left_out(context: Context, options: FrontierStudy) -> dict[str, str]:
    """Method -> why these statistics do not allow it; one that was asked for by name is an error instead."""
    reasons = {}
    for method in options.wanted(context.options.quick):
        try:
            if method != "matched":
                selected(context, method, 1)
        except OptionError as error:
            if method in (options.methods or ()):
                raise
            reasons[method] = str(error)
    return reasons


def selected(context: Context, method: str, size: int) -> LanguageNeurons:
    """The sets of a method with `size` neurons of each language."""
    seed = context.options.seed
    if method == "matched":
        return matched_sets(context.work, selected(context, "lape", size), seed)
    name, more = _named(method)
    if name == "random":
        more = {"seed": seed, **more}
    return identify(context.stats, name, reliability=False, per_language=size, **more)


def _named(method: str) -> tuple[str, dict[str, Any]]:
    """A method and its options: `difference:of=probability,against=largest`."""
    name, _, rest = _METHODS.get(method, method).partition(":")
    more: dict[str, Any] = {}
    for one in filter(None, rest.split(",")):
        key, equals, value = one.partition("=")
        if not equals:
            raise OptionError(
                f"{method!r} is not a selection method. Expected a name, or NAME:OPTION=VALUE,… such as difference:against=largest."
            )
        more[key] = float(value) if value.replace(".", "", 1).isdigit() else value
    return name, more


def _cost(context: Context, options: FrontierStudy) -> Cost:
    """One matrix a method and size, and again of the finalists."""
    more = 0 if options.sizes or context.options.quick else _HALVED + _DOUBLED
    sizes = [
        len(options.sizes_of(method, context)) + (0 if method in CONTROLS else more)
        for method in compared(context, options)
    ]
    first = matrices(context, 1 + sum(sizes))
    if not options.finalists:
        return first
    again = (1 + (1 + options.finalists) * max(sizes, default=0)) * len(context.languages) ** 2
    return Cost(first.passes + again, first.loss_tokens + again * options.final_tokens)


_ADVANTAGES = (
    "How much less one method's sets disturb the other languages than another's do at equal own effect, nats per sentence: at each level, and "
    "averaged over all levels at which both were measured (area). In the row mean, languages are a sample too, by "
    "Student's t; it has an interval where most could be compared."
)

EXPERIMENT = Experiment(
    name="frontier",
    title="Selection methods",
    about="selection methods at equal numbers of neurons",
    options=FrontierStudy,
    run=_run,
    tables={
        "frontier": Table(
            "Own effect, mean of the others and worst other in nats per sentence, and selectivity, of each method and size.",
            FRONTIER,
        ),
        "frontier_matrix": Table(
            "Change of each language's loss with each language's set off, nats per sentence.", MATRIX
        ),
        "levels": Table(
            "What each method costs the other languages, in nats per sentence, at fixed own effects: shares of that of LAPE's published sets. "
            "Nothing stands where a level lies outside of the sizes measured.",
            AT_LEVELS,
        ),
        "advantages": Table(_ADVANTAGES, ADVANTAGES),
        "final_levels": Table("The finalists at fixed own effects, on other sentences.", AT_LEVELS, optional=True),
        "final_advantages": Table(f"{_ADVANTAGES} Of the finalists, on other sentences.", ADVANTAGES, optional=True),
    },
    needs=(MODEL, PARALLEL),
    cost=_cost,
    figures=(
        Figure(
            "frontier",
            "Selection methods: others against own",
            ("frontier",),
            draw,
            sentences(
                "frontier",
                "Selection methods at several sizes of set (points of a line): mean change of the other languages' loss against that of the language "
                "whose neurons are off, nats per sentence, means over languages; lower at equal own effect is more selective.",
            ),
        ),
    ),
    claims=beside(__file__),
    study="always",
)
