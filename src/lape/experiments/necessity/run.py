"""One thought, frequency or necessity: what LAPE and others see of a neuron against what switching it off costs (ours; asked by LAPE's critics)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lape.data.corpus import TextOptions
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.detect.common import over_others
from lape.detect.lape import entropy
from lape.errors import OptionError, TextError
from lape.experiments.necessity.estimates import Estimator
from lape.experiments.necessity.groups import Group, own_groups, sample
from lape.measure.ablation import Ablations, refuse_recorded
from lape.measure.bootstrap import Floats
from lape.measure.correlation import fitted, judged, rank_correlation
from lape.measure.result import Result
from lape.options import Tokens, given, not_negative, positive
from lape.progress import Progress, each, silent
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREDICTORS = ("entropy", "probability", "difference", "recorded")
"""Read from the statistics."""
ESTIMATES = ("first", "along", "layerwise", "second", "bent")
"""Measured on half A of the evaluated text; see `lape.experiments.necessity.estimates`."""
MEASURED = "damage_a"
"""The damage on half A as a prediction of that on half B: what no estimate from half A can be expected to beat."""
ABLATED: dict[str, Any] = {
    **dict.fromkeys(("language", "among"), pl.String),
    "group": pl.Int64,
    "neurons": pl.List(pl.Int64),
    **dict.fromkeys(("layer", "expert", "decile", "chosen"), pl.Int64),
    **dict.fromkeys(("damage", "damage_a", "damage_b", *PREDICTORS, *ESTIMATES), pl.Float64),
}
"""A row per language and group, in nats per token of the language's own text: `among` (sample: spread over layers and deciles of energy; own:
from the language's set), `group`, `neurons` (flat indices), `layer`, `expert`, `decile` (0 to 9), `chosen` (how many are in the language's set);
`damage` of switching it off, and on the two halves of the text, `damage_a`, `damage_b`; from the statistics `entropy` (mean,
negated: higher is more specific; neurons that fire nowhere count as spread evenly), `probability` (mean), `difference` (sum
of mean activations minus the other languages' mean), `recorded` (sum of recorded attributions, null without); and the
estimates from half A of the text: `first`, `along`, `layerwise`, `second` and `bent`, the sum of first and second (these two
null for models with experts; the last three where not asked for).
"""
CORRELATIONS = {
    **dict.fromkeys(("language", "among", "predictor"), pl.String),
    **dict.fromkeys(("rho", "low", "high"), pl.Float64),
    "groups": pl.Int64,
}
"""A row per language, kind of group and predictor: Spearman's `rho` with `damage_b`, which no predictor has seen, with its 95 % bootstrap interval
over `groups`. The predictor `damage_a` is the ceiling: what one half of the text says of the other.
"""
PREDICTIONS = {
    **dict.fromkeys(("language", "estimate", "text"), pl.String),
    "passes": pl.Int64,
    **dict.fromkeys(("scale", "r2", "low", "high", "slope", "correlation"), pl.Float64),
    "groups": pl.Int64,
}
"""A row per language, estimate, `text` and number of ablation `passes` it was scaled by (0: taken as it is), judged on
the half of the sampled groups that no scale was fitted on: by `damage_b` where the text is unseen, by `damage_a` where it is the
same: `scale`, `r2` (1 − squared error / variance; below 0 is worse than the mean) with its interval, `slope` (damage a
predicted nat), `correlation` (Pearson's). A few groups that matter much decide all of these but `rho`. `damage_a` is the ceiling.
"""


@dataclass(frozen=True)
class NecessityOptions(TextOptions):
    """How it is asked whether neurons that fire often matter. Switching one group off costs one pass over a language's text."""

    languages: tuple[str, ...] | None = None
    """Whose text the damage is measured on. Default: the first language of the text."""
    groups: int = 300
    """Groups of neurons switched off one after the other, spread over layers and deciles of energy."""
    own: int = 60
    """Further groups, of the language's own neurons alone; fewer where its set is smaller."""
    size: int = 1
    """Neurons in a group, all of one layer and decile."""
    points: int = 4
    """Points of the paths along which gradients are averaged."""
    layerwise: bool = False
    """Average also along a path for each layer, at `points` backward passes a layer; it predicts little better than one path for all."""
    draws: int = 8
    """Backward passes with tokens drawn from the model, which measure how the loss bends; 0: not measured."""
    calibration: int = 10
    """Groups whose measured damage is enough to scale an estimate."""
    resamples: int = 2000
    """Bootstrap resamples of the groups behind the 95 % intervals."""
    seed: int = 0
    """Seed of the groups, the halves, the drawn tokens and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "size", "points", "calibration", "resamples")
        not_negative(self, "own", "draws")
        if self.groups < 8:
            raise OptionError(f"groups is {self.groups}. Expected 8 or more: half are fitted on, half are judged.")


def necessity(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    texts: Texts,
    *,
    tokens: Tokens | None = None,
    document: Literal["file", "line"] = "file",
    column: str = "text",
    bos: Literal["auto", "always", "never"] = "auto",
    row_tokens: int = 512,
    batch_tokens: int = 2048,
    one_per_row: bool = False,
    languages: tuple[str, ...] | None = None,
    groups: int = 300,
    own: int = 60,
    size: int = 1,
    points: int = 4,
    layerwise: bool = False,
    draws: int = 8,
    calibration: int = 10,
    resamples: int = 2000,
    seed: int = 0,
    allow_recorded: bool = False,
    folder: Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Switch single neurons, or small groups, off and compare the damage with what others say of it (ours; asked by LAPE's critics).

    `texts`: language tag -> other text than was recorded; it is halved by units (documents, or blocks of 8 lines). `folder`: where
    losses are kept, so that a run can go on; it must belong to this model, text and options. Load the model in float32: the
    damage of one neuron is smaller than the rounding of bfloat16.

    Gives the tables `ablated` (`ABLATED`, in nats per token), `correlations` (`CORRELATIONS`) and `predictions` (`PREDICTIONS`). Raises TextError for
    text that is missing or cannot be halved, MismatchError for another model's neurons or statistics, or for text that was recorded.

    Example:
        >>> from lape.experiments.necessity.run import necessity
        >>> few = {"groups": 8, "size": 16, "own": 0, "draws": 0, "points": 1}
        >>> result = necessity(model, tokenizer, neurons, stats, {"fr": texts["fr"]}, tokens=200, resamples=20, **few)
        >>> list(result), len(result["ablated"])
        (['ablated', 'correlations', 'predictions'], 8)
    """
    options = given(NecessityOptions, locals())
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
    progress: Progress = silent,
) -> Result:
    """`necessity` on text that is prepared already; `options.languages` are taken of it, or its first."""
    work.check(neurons=neurons, statistics=stats)
    languages = [tag(language) for language in options.languages or work.languages[:1]]
    missing = [language for language in languages if language not in work.languages]
    if missing:
        raise TextError(f"There is no text for {', '.join(missing)}. Given: {', '.join(work.languages)}.")
    work.base(progress)
    frames = [_ablated(work, neurons, stats, language, options, progress) for language in languages]
    return Result(
        {
            "ablated": pl.concat(frames),
            "correlations": pl.concat([_correlations(frame, options) for frame in frames]),
            "predictions": pl.concat([_predictions(frame, options) for frame in frames]),
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


def _ablated(
    work: Ablations,
    neurons: LanguageNeurons,
    stats: ActivationStats,
    language: str,
    options: NecessityOptions,
    progress: Progress,
) -> pl.DataFrame:
    """One language's groups: what was measured, and what others say."""
    own = neurons[language]
    generator = torch.Generator().manual_seed(options.seed)
    groups = sample(own.space, work.energy(language, "gate"), options.groups, options.size, generator)
    groups += own_groups(own, options.own, options.size, generator)
    half = work.unit(language) % 2 == 0
    if half.all() or not half.any():
        raise TextError(f"The text for {language} is one unit, which cannot be halved. Give two documents or 16 lines.")
    columns = {
        "language": [language] * len(groups),
        "among": [group.among for group in groups],
        "group": range(len(groups)),
        "neurons": [list(group.neurons) for group in groups],
        "layer": [own.space.stretches[group.stretch].layer for group in groups],
        "expert": [own.space.stretches[group.stretch].expert for group in groups],
        "decile": [group.decile for group in groups],
        "chosen": [len(group.neurons & own) for group in groups],
        **_read(stats, language, groups),
        **_estimated(work, language, half, groups, options, progress),
        **_measured(work, language, half, groups, progress),
    }
    return pl.DataFrame({name: columns[name] for name in ABLATED}, schema=ABLATED)


def _measured(
    work: Ablations, language: str, half: NDArray[np.bool_], groups: Sequence[Group], progress: Progress
) -> dict[str, Floats]:
    """The damage of every group on all text and on its halves."""
    base = work.unedited(language)
    wheres = {"damage": np.ones_like(half), "damage_a": half, "damage_b": ~half}
    result = {name: np.zeros(len(groups)) for name in wheres}
    for k, group in enumerate(each(groups, f"switching groups off in {language}", progress)):
        change = work.off(group.neurons, language).nll - base.nll
        for name, where in wheres.items():
            result[name][k] = change[where].sum() / max(int(base.tokens[where].sum()), 1)
    return result


def _read(stats: ActivationStats, language: str, groups: Sequence[Group]) -> dict[str, Any]:
    """What the statistics say of each group."""
    own = stats.languages.index(stats.canonical(language))
    p = stats.probabilities()
    evenness = entropy(p)
    evenness[p.sum(0) == 0] = float(np.log(len(p)))
    gap = over_others(torch.stack([stats.mean(other) for other in stats.languages]), "mean")[own]
    known = "attribution" in stats[language].tensors
    owed = stats.attribution(language) if known else None
    return {
        "entropy": [-float(evenness[group.neurons.flat].mean()) for group in groups],
        "probability": [float(p[own, group.neurons.flat].mean()) for group in groups],
        "difference": [float(gap[group.neurons.flat].sum()) for group in groups],
        "recorded": [None if owed is None else float(owed[group.neurons.flat].sum()) for group in groups],
    }


def _estimated(
    work: Ablations,
    language: str,
    half: NDArray[np.bool_],
    groups: Sequence[Group],
    options: NecessityOptions,
    progress: Progress,
) -> dict[str, Any]:
    """The estimates from half A of the text."""
    corpus = work.corpora[language]
    assert corpus.lines is not None  # prepared with lines=True
    estimator = Estimator(work.model, work.head, corpus, work.options, half[corpus.lines.of_token])
    progress(f"estimating in {language}", 0, None)
    first = estimator.first()
    nothing: list[float | None] = [None] * len(groups)
    layerwise = _sums(estimator.layerwise(options.points), groups) if options.layerwise else nothing
    second: list[Any] = nothing
    bent: list[Any] = nothing
    if options.draws and all(stretch.expert is None for stretch in work.found.space):
        second = estimator.bend([group.neurons for group in groups], options.draws, options.seed).tolist()
        bent = [a + b for a, b in zip(_sums(first, groups), second, strict=True)]
    return {
        "first": _sums(first, groups),
        "along": _sums(estimator.along(options.points), groups),
        "layerwise": layerwise,
        "second": second,
        "bent": bent,
    }


def _sums(owed: Tensor, groups: Sequence[Group]) -> list[Any]:
    return [float(owed[group.neurons.flat].sum()) for group in groups]


def _correlations(ablated: pl.DataFrame, options: NecessityOptions) -> pl.DataFrame:
    rows = []
    for (among,), frame in ablated.partition_by("among", as_dict=True).items():
        damage = frame["damage_b"].to_numpy()
        for predictor in (*PREDICTORS, *ESTIMATES, MEASURED):
            if frame[predictor].null_count():
                continue
            value = rank_correlation(frame[predictor].to_numpy(), damage, options.resamples, options.seed)
            names = {"language": frame["language"][0], "among": among, "predictor": predictor}
            rows.append({**names, **dict(zip(("rho", "low", "high"), value, strict=True)), "groups": len(frame)})
    return pl.DataFrame(rows, schema=CORRELATIONS)


def _predictions(ablated: pl.DataFrame, options: NecessityOptions) -> pl.DataFrame:
    """Estimates as they are, scaled by a few ablations, and by half of the groups; judged on the other half."""
    frame = ablated.filter(pl.col("among") == "sample")
    order = np.random.default_rng(options.seed).permutation(len(frame))
    known, unseen = order[: len(frame) // 2], order[len(frame) // 2 :]
    rows = []
    for estimate in ("recorded", *ESTIMATES, MEASURED):
        if frame[estimate].null_count():
            continue
        x = frame[estimate].to_numpy()
        for passes in (0,) if estimate == MEASURED else sorted({0, min(options.calibration, len(known)), len(known)}):
            used = known[:passes]
            scale = fitted(x[used], frame["damage_a"].to_numpy()[used]) if passes else 1.0
            for text, damage in (("same", "damage_a"), ("unseen", "damage_b")):
                if damage == estimate:
                    continue
                measured = frame[damage].to_numpy()[unseen]
                verdict = judged(scale * x[unseen], measured, options.resamples, options.seed)
                names = {"language": frame["language"][0], "estimate": estimate, "text": text, "passes": passes}
                rows.append({**names, "scale": scale, **verdict, "groups": len(unseen)})
    return pl.DataFrame(rows, schema=PREDICTIONS)
