"""All that is looked up for the neurons of a model, each part once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, prepare_all
from lape.data.texts import Source, Texts
from lape.errors import ModelError, OptionError
from lape.experiments.examples.contexts import ExamplesOptions, contexts
from lape.experiments.examples.effects import EFFECTS
from lape.experiments.examples.effects import effects as switched_off
from lape.experiments.examples.words import WORDS, words
from lape.measure.ablation import PlannedRuns, depends_on, refuse_recorded, unreported
from lape.measure.result import Result
from lape.model.body import check_fits
from lape.model.identity import check_made_with, describe
from lape.model.loss import Head, find_head
from lape.progress import Progress, shown
from lape.recording.run import checked_texts
from lape.store import files
from lape.store.cells import Cells
from lape.values.neurons import LanguageNeurons

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TEXTS = {**dict.fromkeys(("language", "hash"), pl.String), **dict.fromkeys(("documents", "tokens"), pl.Int64)}
"""A row per language: of the text that was read, SHA-256, documents and tokens."""


def examples(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    neurons: LanguageNeurons,
    texts: Texts,
    options: ExamplesOptions,
    *,
    entropy: Tensor | None = None,
    folder: Path | None = None,
    described: Mapping[str, Any] | None = None,
    planned: PlannedRuns = unreported,
    progress: Progress = shown,
) -> Result:
    """Look up what the neurons of all languages do: the contexts in which they fire most (max-activating examples), the tokens that they promote and
    suppress (logit lens), and for those of lowest entropy the effect of switching each off.

    `texts`: language tag -> source, not the text that the neurons were found in (refused, unless `allow_recorded`). `entropy`:
    (neurons,) LAPE of every neuron; default: the scores of neurons that LAPE chose. With a `folder`, what is finished is kept there and a call that
    was stopped goes on from it; one with other neurons, text, model or options is refused. `described`: what
    `lape.model.identity.describe` says, where that is known already. Further: see `ExamplesOptions`.

    Gives the tables `contexts` (`lape.experiments.examples.contexts.CONTEXTS`), `words` (`lape.experiments.examples.words.WORDS`), `effects`
    (`lape.experiments.examples.effects.EFFECTS`, nats per token) and `texts` (`TEXTS`); notes say what could not be had. Raises MismatchError for
    neurons of another model or recorded text, OptionError where no language has neurons, ModelError for activations that are not finite.

    Example:
        >>> from lape.experiments.examples.run import ExamplesOptions, examples
        >>> result = examples(model, tokenizer, neurons, {"fr": texts["fr"]}, ExamplesOptions(tokens=200, keep=2, effects=0))
        >>> list(result), result.notes
        (['contexts', 'words', 'effects', 'texts'], ('effects: none were asked for',))
    """
    check_made_with(model, tokenizer, bos=options.bos, neurons=neurons)
    _check(neurons)
    sources = checked_texts(texts)
    corpora = _prepared(model, tokenizer, sources, neurons, options, progress)
    if folder is not None:
        files.same_run(folder, depends_on(described or describe(model, tokenizer), neurons, corpora, options))
    union = neurons.union
    cells = Cells(folder)
    found = cells.table("contexts", lambda: contexts(model, tokenizer, corpora, union, options, progress))
    about = [{"language": language, **corpus.describe()} for language, corpus in corpora.items()]
    tables = {"contexts": found, "words": pl.DataFrame(schema=WORDS), "effects": pl.DataFrame(schema=EFFECTS)}
    tables["texts"] = pl.DataFrame(about, schema=TEXTS)
    head = _head(model)
    if isinstance(head, str):
        return Result(tables, (f"words: {head}", f"effects: {head}"))
    tables["words"] = cells.table("words", lambda: words(model, tokenizer, head, union, progress))
    entropy = _entropy(neurons) if entropy is None else entropy
    if not options.effects:
        return Result(tables, ("effects: none were asked for",))
    if entropy is None:
        return Result(tables, (f"effects: neurons of the method {neurons.method} have no entropy",))
    tables["effects"], notes = switched_off(
        model, tokenizer, sources, neurons, entropy, options, folder=folder, planned=planned, progress=progress
    )
    return Result(tables, tuple(notes))


def _entropy(neurons: LanguageNeurons) -> Tensor | None:
    """(neurons,) LAPE of the neurons that LAPE chose, infinite elsewhere; None for those of other methods."""
    if neurons.method != "lape" or neurons.profile is None or neurons.scores is None:
        return None
    return neurons.profile.spread(neurons.scores, elsewhere=torch.inf)


def _prepared(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sources: Mapping[str, Source],
    neurons: LanguageNeurons,
    options: ExamplesOptions,
    progress: Progress,
) -> dict[str, Corpus]:
    """The text to look at, which fits the model and, unless that is allowed, was not recorded."""
    corpora = prepare_all(sources, tokenizer, options, progress=progress)
    for corpus in corpora.values():
        check_fits(model, options.row_tokens, int(corpus.tokens.max()))
    if not options.allow_recorded:
        refuse_recorded(corpora, neurons)
    return corpora


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
