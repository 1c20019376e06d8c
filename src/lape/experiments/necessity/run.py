"""One thought, frequency or necessity: what LAPE and others see of neurons against what switching them off costs (ours; asked by LAPE's critics)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from lape.data.corpus import TextOptions
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.detect.common import over_others
from lape.detect.lape import entropy
from lape.errors import OptionError, TextError, certain
from lape.experiments.necessity.estimates import Estimator, Expansion
from lape.experiments.necessity.groups import Group, own_subsets, sample, split
from lape.experiments.necessity.predictions import Readings, predictions
from lape.measure.ablation import Ablations, digest, refuse_recorded
from lape.measure.bootstrap import FEWEST, Floats, Resamples, by_unit, several_documents
from lape.measure.correlation import rank_correlation
from lape.measure.intervals import resampled
from lape.measure.result import Result
from lape.options import NotNegative, Positive, at_least
from lape.progress import Progress, each, shown
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREDICTORS = ("entropy", "probability", "difference", "recorded")
"""Read from the statistics."""
ESTIMATES = ("first", "second", "bent", "along", "mended")
"""Measured on the evaluated text for all sets at once; see `lape.experiments.necessity.estimates`."""
BOUNDS = ("path", "trapezoid")
"""Measured set by set."""
DAMAGES: dict[str, Any] = {
    **dict.fromkeys(("language", "among"), pl.String),
    "group": pl.Int64,
    "neurons": pl.List(pl.Int64),
    **dict.fromkeys(("size", "layers", "chosen"), pl.Int32),
    "fitted": pl.Boolean,
    **dict.fromkeys(
        (
            "damage",
            "damage_a",
            "damage_b",
            *PREDICTORS,
            "energy",
            *ESTIMATES,
            *(f"{name}_a" for name in ESTIMATES),
            *BOUNDS,
        ),
        pl.Float64,
    ),
}
"""A row per language and set that was switched off, in nats per token of the language's own text: `among` (sample: random neurons of all layers; own:
random ones of the language's set), `group`, `neurons` (flat indices), `size`, `layers` (in how many they lie), `chosen` (how many are in the language's
set), `fitted` (links are fitted on it, so that it is not judged); `damage` of switching it off, and on the two halves of the text, `damage_a`,
`damage_b`; from the statistics `entropy` (mean, negated: higher is more specific; neurons that fire nowhere count as spread evenly), `probability`
(mean), `difference` (sum of mean activations minus the other languages' mean), `recorded` (sum of recorded attributions, null without); from the text
`energy` (sum of E[(a·up)²]·‖down column‖²); and the estimates: `first`, `second`, their sum, `bent`, `along` the path of the language's whole set, and
`mended` by what single neurons were measured to do (all but the first null where nothing was drawn), each from all of the text and, `_a`, from
its first half; `path` and `trapezoid` of the sets that they were asked for, else null.
"""
CORRELATIONS = {
    **dict.fromkeys(("language", "among"), pl.String),
    "size": pl.Int32,
    "predictor": pl.String,
    **resampled("rho"),
    "groups": pl.Int64,
}
"""A row per language, kind and size of sets and predictor from the statistics: Spearman's `rho` with the `damage`, with its 95 % bootstrap interval over
`groups` sets.
"""


@dataclass(frozen=True)
class NecessityOptions(TextOptions):
    """How it is asked whether neurons that fire often matter. Switching one set off costs one pass over a language's text."""

    languages: tuple[str, ...] | None = None
    """Whose text the damage is measured on. Default: the first language of the text."""
    groups: Annotated[int, at_least(8)] = 60
    """Random sets of each size, drawn from all layers, switched off one after the other."""
    sizes: tuple[Positive, ...] = (16,)
    """Neurons in a random set."""
    own: NotNegative = 60
    """Random subsets of the language's own set, of all their sizes together; fewer where its set is small."""
    own_sizes: tuple[Positive, ...] = (5, 20, 50)
    """Neurons in such a subset; sizes that the set does not exceed are left out."""
    draws: NotNegative = 8
    """Backward passes with tokens drawn from the model, which measure how the loss bends; 0: not measured."""
    calibration: Positive = 10
    """Sets, half of them of each kind, whose measured damage is enough to fit a link between estimate and damage; they are not judged."""
    singles: NotNegative = 10
    """Neurons of the language's own set, those of the largest estimates, that are switched off one by one: what their damage differs from the estimate is
    added to every set that they are in (`mended`)."""
    bounds: NotNegative = 0
    """Sets of each kind for which gradients are also averaged along their own path, which is dearer than measuring the damage."""
    points: NotNegative = 4
    """Points of those paths, and of the path of the language's whole set, at a pass forwards and backwards each; 0: it is not followed."""
    resamples: Positive = 2000
    """Bootstrap resamples of sets and documents behind the 95 % intervals."""
    seed: int = 0
    """Seed of the sets, their split, the drawn tokens and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bounds and not self.points:
            raise OptionError("bounds asks for paths, but points is 0. Give points of 1 or more.")
        if not self.sizes:
            raise OptionError("sizes names no number of neurons. Expected one at least, such as 16.")


def necessity(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    texts: Texts,
    options: NecessityOptions,
    *,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Switch sets of neurons off and compare the damage with what others say of it (ours; asked by LAPE's critics).

    `texts`: language tag -> other text than was recorded, in several documents, which are halved. `folder`: where
    losses are kept, so that a run can go on; it must belong to this model, text and options. Load the model in float32: the
    damage of few neurons is smaller than the rounding of bfloat16.

    Gives the tables `damages` (`DAMAGES`, in nats per token), `damage_correlations` (`CORRELATIONS`) and `damage_predictions`
    (`lape.experiments.necessity.predictions.PREDICTIONS`). Raises TextError for text that is missing or in one document, MismatchError for another
    model's neurons or statistics, or for text that was recorded.

    Example:
        >>> from lape.experiments.necessity.run import NecessityOptions, necessity
        >>> few = {"groups": 8, "own": 0, "draws": 1, "calibration": 2, "tokens": 200, "resamples": 20}
        >>> result = necessity(model, tokenizer, neurons, stats, {"fr": texts["fr"]}, NecessityOptions(**few))
        >>> list(result), len(result["damages"])
        (['damages', 'damage_correlations', 'damage_predictions'], 8)
    """
    chosen = _wanted(texts, options)
    work = Ablations(model, tokenizer, chosen, options, folder=folder, progress=progress)
    if not options.allow_recorded:
        refuse_recorded(work.corpora, neurons)
    return necessities(work, neurons, stats, options, progress=progress)


def necessities(
    work: Ablations,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    options: NecessityOptions,
    *,
    progress: Progress = shown,
) -> Result:
    """`necessity` on text that is prepared already; `options.languages` are taken of it, or its first."""
    work.check(neurons=neurons, statistics=stats)
    languages = [tag(language) for language in options.languages or work.languages[:1]]
    missing = [language for language in languages if language not in work.languages]
    if missing:
        raise TextError(f"There is no text for {', '.join(missing)}. Given: {', '.join(work.languages)}.")
    for language in languages:
        _check_documents(work, language)
    work.base(progress)
    read = [_readings(work, neurons, stats, language, options, progress) for language in languages]
    frames = [_ablated(one, neurons, stats) for one in read]
    return Result(
        {
            "damages": pl.concat(frames),
            "damage_correlations": pl.concat([correlations(frame, options) for frame in frames]),
            "damage_predictions": pl.concat([predictions(one, options.resamples, options.seed) for one in read]),
        }
    )


def _wanted(texts: Texts, options: NecessityOptions) -> Texts:
    """Only the text that is needed."""
    if not isinstance(texts, dict) or not texts:
        return texts  # refused with the others
    if options.languages is None:
        return dict([next(iter(texts.items()))])
    languages = [tag(language) for language in options.languages]
    return {code: source for code, source in texts.items() if tag(code) in languages}


def _check_documents(work: Ablations, language: str) -> None:
    if not several_documents(certain(work.corpora[language].lines).place):
        raise TextError(
            f"The text for {language} is one document, which cannot be halved: estimates are made document by document. "
            f"Give {2 * FEWEST} or more: document='line', or files of records."
        )


def _readings(
    work: Ablations,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    language: str,
    options: NecessityOptions,
    progress: Progress,
) -> Readings:
    """One language's sets: what was measured and estimated of each, unit by unit."""
    own = neurons[language]
    generator = torch.Generator().manual_seed(options.seed)
    groups = [group for size in options.sizes for group in sample(own.space, options.groups, size, generator)]
    groups += own_subsets(own, options.own, options.own_sizes, generator)
    base, unit = work.unedited(language), work.unit(language)
    _, unit = np.unique(unit, return_inverse=True)  # those that this language has
    count = int(unit.max()) + 1
    estimates = _estimated(work, language, groups, own, unit, options, progress)
    damage = [
        by_unit(unit, work.off(group.neurons, language).nll - base.nll, count)
        for group in each(groups, f"switching sets off in {language}", progress)
    ]
    owed = stats.attribution(language) if "attribution" in stats[language].tensors else None
    return Readings(
        language,
        groups,
        np.array(split(groups, options.calibration, generator)),
        np.arange(count) % 2 == 0,
        by_unit(unit, base.tokens, count),
        np.array(damage),
        estimates,
        {"mended": options.singles},
        {
            "counted": np.array([float(len(group.neurons)) for group in groups]),
            "energy": np.array([float(work.energy(language)[group.neurons.flat].sum()) for group in groups]),
            **({} if owed is None else {"recorded": np.array([float(owed[g.neurons.flat].sum()) for g in groups])}),
        },
    )


def _estimated(
    work: Ablations,
    language: str,
    groups: Sequence[Group],
    own: NeuronSet,
    unit: NDArray[np.int64],
    options: NecessityOptions,
    progress: Progress,
) -> dict[str, dict[str, Floats]]:
    """Of all of the text, and what is known of its first half alone: estimate -> (sets, units) nats; not a number where it was not made."""
    corpus = work.corpora[language]
    estimator = Estimator(work.model, work.head, corpus, work.options)
    alone = [NeuronSet(own.space, own.flat[k : k + 1]) for k in range(len(own))]
    sets = [*(group.neurons for group in groups), *alone, own]
    of_document = np.zeros(corpus.documents, np.int64)
    of_document[certain(corpus.lines).document] = unit

    def by_units(values: Floats) -> Floats:
        return np.array([by_unit(of_document, row, int(unit.max()) + 1) for row in values])

    def expand() -> dict[str, torch.Tensor]:
        found = estimator.expand(sets, options.draws, options.seed, progress, what=f"estimating in {language}")
        slopes = estimator.slopes(sets, options.points, progress, what=f"following the path of {language}")
        return {name: torch.from_numpy(values) for name, values in (*vars(found).items(), ("slopes", slopes))}

    what = "".join([*map(digest, sets), str((options.draws, options.seed, options.points))])
    name = f"expansion.{hashlib.sha256(what.encode()).hexdigest()[:20]}.{language}"
    kept = {key: one.numpy() for key, one in work.cells.tensors(name, expand, "an expansion").items()}
    slopes = kept.pop("slopes")
    found = Expansion(**kept)
    nothing = np.full_like(found.first, np.nan)
    bounds = _bounds(estimator, groups, options, progress)

    half = of_document % 2 == 0
    bent = found.first + (found.second if options.draws else nothing)
    largest = _largest(bent[len(groups) : -1], half, options.singles)
    errors = {}
    for k in each(largest, f"switching single neurons off in {language}", progress):
        change = work.off(alone[k], language).nll - work.unedited(language).nll
        errors[int(own.flat[k])] = by_unit(unit, change, int(unit.max()) + 1) - by_units(bent[[len(groups) + k]])[0]

    def made(where: NDArray[np.bool_]) -> dict[str, Floats]:
        along = found.along(slopes, where) if options.draws and options.points else nothing
        terms = {"first": found.first, "second": bent - found.first, "bent": bent, "along": along}
        result = {key: by_units(values[: len(groups)]) for key, values in (terms | bounds).items()}
        known = [sum(error for flat, error in errors.items() if flat in group.neurons) for group in groups]
        mended = [one + more for one, more in zip(result["along"], known, strict=True)]
        return {**result, "mended": np.array(mended)}

    return {"same": made(np.ones_like(half)), "unseen": made(half)}


def _largest(estimates: Floats, where: NDArray[np.bool_], count: int) -> list[int]:
    """Which of (neurons, documents) have the largest estimates over some documents: at most `count`."""
    total = np.nan_to_num(estimates[:, where]).sum(1)
    order = np.argsort(-total, kind="stable")[:count]
    return [int(k) for k in order if total[k] > 0]


def _bounds(
    estimator: Estimator, groups: Sequence[Group], options: NecessityOptions, progress: Progress
) -> dict[str, Floats]:
    """Estimates along the own paths of the first sets of each kind, (sets, documents)."""
    shape = (len(groups), estimator.corpus.documents)
    result = {name: np.full(shape, np.nan) for name in BOUNDS}
    kinds = {kind: [k for k, group in enumerate(groups) if group.among == kind] for kind in ("sample", "own")}
    chosen = [k for of in kinds.values() for k in of[: options.bounds]]
    for k in each(chosen, "following paths", progress):
        result["path"][k] = estimator.path(groups[k].neurons, options.points)
        result["trapezoid"][k] = estimator.trapezoid(groups[k].neurons)
    return result


def _ablated(read: Readings, neurons: LanguageNeurons, stats: ActivationStats) -> pl.DataFrame:
    """One language's sets as `DAMAGES`."""
    groups, own = read.groups, neurons[read.language]
    every, a = np.ones_like(read.half), read.half
    columns: dict[str, Any] = {
        "language": [read.language] * len(groups),
        "among": [group.among for group in groups],
        "group": range(len(groups)),
        "neurons": [list(group.neurons) for group in groups],
        "size": [len(group.neurons) for group in groups],
        "layers": [
            len({own.space.stretches[k].layer for k in own.space.split(group.neurons.flat)}) for group in groups
        ],
        "chosen": [len(group.neurons & own) for group in groups],
        "fitted": read.fitted,
        "damage": read.mean(read.damage, every),
        "damage_a": read.mean(read.damage, a),
        "damage_b": read.mean(read.damage, ~a),
        **_read(stats, read.language, groups),
        "recorded": read.told.get("recorded", [None] * len(groups)),
        "energy": read.told["energy"],
        **{name: read.mean(values, every) for name, values in read.estimates["same"].items()},
        **{f"{name}_a": read.mean(read.estimates["unseen"][name], a) for name in ESTIMATES},
    }
    frame = pl.DataFrame({name: columns[name] for name in DAMAGES}, schema=DAMAGES)
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _read(stats: ActivationStats, language: str, groups: Sequence[Group]) -> dict[str, Any]:
    """What the statistics say of each set."""
    own = stats.languages.index(stats.canonical(language))
    p = stats.probabilities()
    evenness = entropy(p)
    evenness[p.sum(0) == 0] = float(np.log(len(p)))
    gap = over_others(torch.stack([stats.mean(other) for other in stats.languages]), "mean")[own]
    return {
        "entropy": [-float(evenness[group.neurons.flat].mean()) for group in groups],
        "probability": [float(p[own, group.neurons.flat].mean()) for group in groups],
        "difference": [float(gap[group.neurons.flat].sum()) for group in groups],
    }


def correlations(damages: pl.DataFrame, options: NecessityOptions) -> pl.DataFrame:
    """`CORRELATIONS` of one language's `DAMAGES`."""
    rows = []
    for (among, size), frame in damages.partition_by("among", "size", as_dict=True, maintain_order=True).items():
        drawn = Resamples(len(frame), options.resamples, options.seed)
        for predictor in PREDICTORS:
            if frame[predictor].null_count():
                continue
            known, damage = frame[predictor].to_numpy(), frame["damage"].to_numpy()
            rho = drawn.named("rho", rank_correlation(known, damage, drawn), quantiles=True)
            names = {"language": frame["language"][0], "among": among, "size": size, "predictor": predictor}
            rows.append({**names, **rho, "groups": len(frame)})
    return pl.DataFrame(rows, schema=CORRELATIONS)
