"""One thought: what switching off each language's neurons does to each language's loss, with controls and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from torch import nn

from lape.data.corpus import TextOptions
from lape.data.texts import Texts
from lape.measure.ablation import Ablations, PlannedRuns, depends_on, refuse_recorded, unreported
from lape.measure.bootstrap import Resamples
from lape.measure.changes import resampled_ends
from lape.measure.controlled import lines_of, ratio_to_mean, sets_and_controls, unedited_lines
from lape.measure.controls import MATCHED, RANDOM, kinds_of
from lape.model.identity import check_made_with, describe
from lape.options import NotNegative, Positive, keywords_of, select_options
from lape.progress import Progress, each, shown
from lape.store import files
from lape.values.neurons import LanguageNeurons

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SUMMARY = {
    **dict.fromkeys(("off", "language"), pl.String),
    **dict.fromkeys(("neurons", "tokens", "characters", "sentences", "units"), pl.Int64),
    **dict.fromkeys(
        ("nll_base", "nll_off", "delta_token", "low", "high", "delta_character", "delta_sentence"), pl.Float64
    ),
    **dict.fromkeys(("perplexity_base", "perplexity_off", "percent"), pl.Float64),
    **dict.fromkeys(("random_mean", "random_max", "matched_mean", "matched_max", "matched_energy"), pl.Float64),
}


@dataclass(frozen=True)
class PerplexityOptions(TextOptions):
    """How the damage of switching a language off is measured."""

    controls: tuple[str, ...] = ("random", "matched")
    """Kinds of control neurons (`lape.measure.controls.CONTROLS`): random, matched, matched-apart, gate, gate-apart."""
    draws: NotNegative = 20
    """Draws of each kind, on the ablated language itself."""
    elsewhere: NotNegative = 4
    """How many of the draws are measured on every other language too; random ones never are."""
    resamples: Positive = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of the control draws and the bootstrap."""
    allow_recorded: bool = False
    """Evaluate even text that the neurons were found on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds_of(self.controls)


@dataclass(frozen=True)
class PerplexityArguments(PerplexityOptions):
    """What `perplexity` takes besides a model, its tokenizer, neurons and texts."""

    progress: Progress = shown
    """Called with what is being done, how much of it is done, and of how much."""


@keywords_of(PerplexityArguments)
def perplexity(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    texts: Texts,
    options: PerplexityArguments,
) -> pl.DataFrame:
    """The change of loss with each language's neurons off (zero ablation), on text of each language: a row for each pair of languages.

    `neurons`: the sets, as `lape.identify` gives them. `texts`: language tag -> source, not the text that the neurons were found on (refused, unless
    `allow_recorded`). Of each language its own set is switched off, and on its own text as many control neurons, `draws` times: random ones of the
    same layers, and ones of the same layers that write as much (`lape.measure.controls`), the first `elsewhere` draws of which on the other languages
    too. Columns, all in nats (natural log) per token, character or sentence, with 95 %
    bootstrap intervals: see `summary`. Further options: see `PerplexityOptions` (Tang et al. 2024 measure perplexity the same way, without controls).

    Raises MismatchError for neurons of another model or text that was recorded, TextError for text that cannot be used, OptionError for an option that
    makes no sense.

    Example:
        >>> table = lape.perplexity(model, tokenizer, neurons, {"fr": texts["fr"], "zh": texts["zh"]}, tokens=200, draws=1)
        >>> table.filter(off="fr", language="fr")["delta_token"].item() > 0
        True
    """
    chosen = select_options(PerplexityOptions, options)
    return summary(line_losses(model, tokenizer, neurons, texts, chosen, progress=options.progress), neurons, chosen)


def line_losses(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    texts: Texts,
    options: PerplexityOptions,
    *,
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
    planned: PlannedRuns = unreported,
    progress: Progress = shown,
) -> pl.DataFrame:
    """The loss of every line in every condition, the ground of all tables.

    With a `folder`, what was measured is kept there, and a call that was stopped goes on from it; one with other neurons, text, model
    or options is refused. `described`: what `lape.model.identity.describe` says, where that is known already, since it reads all weights. `planned`:
    see `PlannedRuns`.

    Columns: `off` (language switched off, "" for the base), `kind` (base, own, or a kind of control), `draw`, `language` (evaluated), `document`,
    `line`, `unit` (of resampling), `tokens` (scored), `characters`, `nll` (nats, summed over the line), `energy_ratio` (of a control: its set's energy
    over its own).
    """
    check_made_with(model, tokenizer, bos=options.bos, neurons=neurons)
    work = Ablations(model, tokenizer, texts, options, folder=folder, progress=progress)
    if not options.allow_recorded:
        refuse_recorded(work.corpora, neurons)
    if folder is not None:
        described = described or describe(model, tokenizer)
        files.same_run(folder, depends_on(described, neurons, work.corpora, options))
    return losses(work, neurons, options, progress, planned)


def losses(
    work: Ablations,
    neurons: LanguageNeurons,
    options: PerplexityOptions,
    progress: Progress = shown,
    planned: PlannedRuns = unreported,
) -> pl.DataFrame:
    """`line_losses` on text that is prepared already."""
    read, taken = work.base(progress)
    how = {name: getattr(options, name) for name in ("controls", "draws", "elsewhere", "seed")}
    runs = [(one, k) for one in sets_and_controls(work, neurons, **how) for k in one.languages(work)]
    tokens = sum(work.passes(condition.neurons, language) for condition, language in runs)
    planned(sum(len(condition.neurons) > 0 for condition, _ in runs), tokens, taken / read * tokens if read else None)
    frames = [
        lines_of(work, condition, language, work.off(condition.neurons, language))
        for condition, language in each(runs, "switching neurons off", progress)
    ]
    return pl.concat([*unedited_lines(work), *frames])


def summary(lines: pl.DataFrame, neurons: LanguageNeurons, options: PerplexityOptions) -> pl.DataFrame:
    """One row per language switched off and language evaluated. Losses are negative log-likelihoods in nats.

    `off`, `language`, `neurons` (switched off); `tokens`, `characters`, `sentences` (lines), `units` (of resampling);
    `nll_base`, `nll_off` (per token); `delta_token` with its 95 % interval `low`, `high` (null under 20 units);
    `delta_character`, `delta_sentence`; `perplexity_base`, `perplexity_off`, `percent` (change of perplexity, for convenience);
    `random_mean`, `random_max`, `matched_mean`, `matched_max`: `delta_token` of the control draws, null where none was measured;
    `matched_energy`: the set's written energy over the mean of its matched draws.

    `lines`: the loss of every line in every condition, as `lape.experiments.perplexity.run.line_losses` gives it.

    Example:
        >>> from lape.experiments.perplexity.run import PerplexityOptions, line_losses, summary
        >>> options = PerplexityOptions(tokens=200, draws=1)
        >>> lines = line_losses(model, tokenizer, neurons, {"fr": texts["fr"]}, options)
        >>> table = summary(lines, neurons, options)
        >>> table.filter(off="fr")["delta_token"].round(1).to_list()  # nats per token
        [1.6]
    """
    drawn = Resamples(int(lines["unit"].max()) + 1, options.resamples, options.seed)  # type: ignore[arg-type]
    parts = {
        key: frame.sort("line")
        for key, frame in lines.partition_by("off", "kind", "draw", "language", as_dict=True).items()
    }
    evaluated = list(dict.fromkeys(lines["language"]))
    rows = []
    for off, found in neurons.items():
        # a draw is one, on however many languages it was measured
        of_draws = {key[2]: part["energy_ratio"][0] for key, part in parts.items() if key[:2] == (off, MATCHED.name)}
        matched_energy = ratio_to_mean([*of_draws.values()])
        for language in evaluated:
            base, after = parts["", "base", 0, language], parts[off, "own", 0, language]
            row = {"off": off, "language": language, "neurons": len(found)} | _change(base, after, drawn)
            for kind in (RANDOM.name, MATCHED.name):
                draws = [
                    _delta(base, parts[key]) for key in parts if key[0] == off and key[1] == kind and key[3] == language
                ]
                row |= {
                    f"{kind}_mean": float(np.mean(draws)) if draws else None,
                    f"{kind}_max": max(draws, default=None),
                }
            rows.append(row | {"matched_energy": matched_energy})
    return pl.DataFrame(rows, schema=SUMMARY)


def _delta(base: pl.DataFrame, after: pl.DataFrame) -> float:
    return (float(after["nll"].sum()) - float(base["nll"].sum())) / int(base["tokens"].sum())


def _change(base: pl.DataFrame, after: pl.DataFrame, drawn: Resamples) -> dict[str, Any]:
    tokens, characters = int(base["tokens"].sum()), int(base["characters"].sum())
    before_nats, after_nats = float(base["nll"].sum()), float(after["nll"].sum())
    difference = after["nll"].to_numpy() - base["nll"].to_numpy()
    unit = base["unit"].to_numpy()
    total = after_nats - before_nats
    return {
        "tokens": tokens,
        "characters": characters,
        "sentences": len(base),
        "units": len(np.unique(unit)),
        "nll_base": before_nats / tokens,
        "nll_off": after_nats / tokens,
        "delta_token": total / tokens,
        **resampled_ends(unit, difference, base["tokens"], drawn),
        "delta_character": total / characters,
        "delta_sentence": total / len(base),
        "perplexity_base": float(np.exp(before_nats / tokens)),
        "perplexity_off": float(np.exp(min(after_nats / tokens, 700.0))),
        "percent": float(100 * np.expm1(min(total / tokens, 700.0))),
    }
