"""What switching off single neurons does to the loss of their own language, beside neurons like them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from torch import Tensor, nn

from lape.data.corpus import TextOptions
from lape.data.texts import Documents, Source, Texts, documents
from lape.experiments.examples.contexts import ExamplesOptions
from lape.experiments.examples.pieces import decoded
from lape.experiments.experiment import taken
from lape.measure.ablation import Ablations, PlannedRuns, unreported
from lape.measure.bootstrap import FEWEST, Resamples
from lape.measure.changes import loss_change
from lape.measure.controls import control, seeded
from lape.progress import Progress, each, shown
from lape.values.neurons import LanguageNeurons, NeuronSet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EFFECTS = {
    "language": pl.String,
    "flat": pl.Int64,
    "entropy": pl.Float64,
    "tokens": pl.Int64,
    **dict.fromkeys(("delta", "low", "high"), pl.Float64),
    "kind": pl.String,
}
"""A row per neuron, each followed by its control: `language`, `flat` (index of the neuron), `entropy` (nats; null where it is infinite), `tokens`
(scored), `delta` (nats per token with that one neuron off minus unedited) with its 95 % interval `low`, `high` over units of text (null
under 20), `kind` (own; or control: a neuron of no language, of the same layer, near in written energy in that language).
"""


@dataclass(frozen=True)
class _One:
    """One neuron to be switched off."""

    language: str
    kind: str
    neurons: NeuronSet


def effects(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    neurons: LanguageNeurons,
    entropy: Tensor,
    options: ExamplesOptions,
    *,
    folder: Path | None = None,
    planned: PlannedRuns = unreported,
    progress: Progress = shown,
) -> tuple[pl.DataFrame, list[str]]:
    """The change of loss on a language's own text when one of its neurons is off, for its `options.effects` neurons of lowest
    `entropy` (neurons,), and what was left out, in words.

    `EFFECTS`, one row per neuron, each followed by its control. Finished cells are kept in `folder`.
    """
    own = {k: lowest(neurons[k], entropy, options.effects) for k in texts if k in neurons}
    notes = [f"effects of {k}: it has no neurons" for k in texts if k not in neurons or not len(own[k])]
    notes += [
        f"effects of {k}: no text in it was given" for k, found in neurons.items() if len(found) and k not in texts
    ]
    own = {k: found for k, found in own.items() if found}
    if not own:
        return pl.DataFrame(schema=EFFECTS), notes
    text = replace(
        taken(TextOptions, options), tokens=min(options.effect_tokens, options.tokens or options.effect_tokens)
    )
    cut = {k: beginnings(texts[k], tokenizer, text) for k in own}
    work = Ablations(model, tokenizer, cut, text, folder=folder, progress=progress)
    read, seconds = work.base(progress)
    todo = [one for k, found in own.items() for one in _with_controls(k, found, neurons, work, options, notes)]
    tokens = sum(work.passes(one.neurons, one.language) for one in todo)
    planned(len(todo), tokens, seconds / read * tokens if read else None)
    return _measured(work, todo, entropy, options, progress), notes


def lowest(neurons: NeuronSet, entropy: Tensor, count: int) -> list[NeuronSet]:
    """The `count` neurons of lowest entropy of a set, one by one; the lower index first where entropies are equal."""
    order = entropy[neurons.flat].sort(stable=True).indices[:count]
    return [NeuronSet(neurons.space, flat[None]) for flat in neurons.flat[order]]


def _with_controls(
    language: str,
    own: list[NeuronSet],
    neurons: LanguageNeurons,
    work: Ablations,
    options: ExamplesOptions,
    notes: list[str],
) -> list[_One]:
    """Each neuron, and after it another one like it, each of those once."""
    number = list(neurons).index(language)
    generator = seeded(options.seed, number)
    taken, result = neurons.union, []
    for one in own:
        result.append(_One(language, "own", one))
        other, _ = control(one, taken, work.energy(language), generator)
        if other is None:
            notes.append(f"control of neuron {one.flat.item()} of {language}: its layer has no other neurons left")
        else:
            taken = taken | other
            result.append(_One(language, "control", other))
    return result


def _measured(
    work: Ablations, todo: list[_One], entropy: Tensor, options: ExamplesOptions, progress: Progress
) -> pl.DataFrame:
    drawn = Resamples(work.units, options.resamples, options.seed)
    rows = []
    for one in each(todo, "switching single neurons off", progress):
        flat, language = int(one.neurons.flat), one.language
        known = float(entropy[flat])
        row = {"language": language, "flat": flat, "entropy": known if np.isfinite(known) else None, "kind": one.kind}
        before, after = work.unedited(language), work.off(one.neurons, language)
        rows.append(row | loss_change("delta", work.unit(language), before, after, drawn))
    return pl.DataFrame(rows, schema=EFFECTS)


def beginnings(source: Source, tokenizer: PreTrainedTokenizerBase, options: TextOptions) -> Source:
    """The beginnings of a text's documents, cut so that 20 of them, which an interval needs, are in `options.tokens`; the text as it
    is where it has fewer documents.
    """
    most = options.tokens or 0
    share, left = max(most // FEWEST, 8), most
    cut: list[str] = []
    for pieces in documents(source, rule=options.document, column=options.column, blank=True):
        text = "".join(islice(pieces, 1))
        ids = tokenizer(text[: share * 32], add_special_tokens=False)["input_ids"][:share]
        cut.append(decoded(tokenizer, ids).rstrip("�") if text else "")
        left -= len(ids)
        if left <= 0:
            break
    return Documents(cut) if sum(map(bool, cut)) >= FEWEST else source
