"""All that is looked up for the neurons of a model, each part once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from lape.data.corpus import prepare
from lape.data.texts import Texts
from lape.errors import ModelError, OptionError
from lape.experiments.examples.contexts import ExamplesOptions, contexts
from lape.experiments.examples.effects import EFFECTS, effects
from lape.experiments.examples.words import WORDS, words
from lape.measure.ablation import Planned, depends_on, refuse_recorded, untold
from lape.model.body import check_fits
from lape.model.identity import check_made_with, describe
from lape.model.loss import Head, find_head
from lape.options import given
from lape.progress import Progress, silent
from lape.recording.run import checked_texts
from lape.store import files
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons


@dataclass(frozen=True)
class Examples:
    """What was looked up."""

    contexts: pl.DataFrame
    """See `lape.experiments.examples.contexts.contexts`."""
    words: pl.DataFrame
    """See `lape.experiments.examples.words.words`."""
    effects: pl.DataFrame
    """See `lape.experiments.examples.effects.effects`."""
    texts: dict[str, dict[str, Any]]
    """Language -> hash, documents and tokens of the text that was read."""
    left_out: tuple[str, ...] = ()
    """What could not be had, and why, in words."""


def examples(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    neurons: LanguageNeurons,
    options: ExamplesOptions | None = None,
    *,
    entropy: Tensor | None = None,
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
    planned: Planned = untold,
    progress: Progress = silent,
    **changes: Any,
) -> Examples:
    """Look up what the neurons of all languages do: the contexts in which they fire most, the tokens that they promote and suppress,
    and for those of lowest entropy the effect of switching each off.

    `texts`: language tag -> source, not the text that the neurons were found in (refused, unless `allow_recorded`). `entropy`:
    (neurons,) LAPE of every neuron; default: the scores of neurons that LAPE chose. With a `folder`, what is finished is kept there and a call that
    was stopped goes on from it; one with other neurons, text, model or options is refused. `described`: what
    `lape.model.identity.describe` says, where that is known already. Raises MismatchError for neurons of another model or recorded text,
    OptionError where no language has neurons, ModelError for activations that are no numbers.
    """
    options = given(ExamplesOptions, options, changes)
    check_made_with(model, tokenizer, bos=options.bos, neurons=neurons)
    _check(neurons)
    sources = checked_texts(texts)
    corpora = {k: prepare(k, source, tokenizer, options, progress=progress) for k, source in sources.items()}
    for corpus in corpora.values():
        check_fits(model, options.row_tokens, int(corpus.tokens.max()))
    if not options.allow_recorded:
        refuse_recorded(corpora, neurons)
    if folder is not None:
        files.same_run(folder, depends_on(described or describe(model, tokenizer), neurons, corpora, options))
    union = neurons.union
    cells = Cells(folder)
    found = cells.table("contexts", lambda: contexts(model, tokenizer, corpora, union, options, progress))
    about = {language: corpus.describe() for language, corpus in corpora.items()}
    head = _head(model)
    if isinstance(head, str):
        left_out = (f"words: {head}", f"effects: {head}")
        return Examples(found, pl.DataFrame(schema=WORDS), pl.DataFrame(schema=EFFECTS), about, left_out)
    written = cells.table("words", lambda: words(model, tokenizer, head, union, progress))
    if entropy is None and neurons.method == "lape" and neurons.profile is not None and neurons.scores is not None:
        entropy = neurons.profile.spread(neurons.scores, elsewhere=torch.inf)
    if entropy is None or not options.effects:
        why = (
            "none were asked for" if not options.effects else f"neurons of the method {neurons.method} have no entropy"
        )
        return Examples(found, written, pl.DataFrame(schema=EFFECTS), about, (f"effects: {why}",))
    measured, notes = effects(
        model, tokenizer, sources, neurons, entropy, options, folder=folder, planned=planned, progress=progress
    )
    return Examples(found, written, measured, about, tuple(notes))


def _check(neurons: LanguageNeurons) -> None:
    if not len(neurons.union):
        raise OptionError(
            f"None of {', '.join(neurons) or 'no language'} has any neurons. Choose more: lape identify RUN --rate 0.02 --overwrite."
        )


def _head(model: Any) -> Head | str:
    """The model's head, or why it cannot be read."""
    try:
        return find_head(model)
    except ModelError as error:
        return str(error)
