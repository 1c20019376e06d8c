"""Run texts through a model and count, neuron by neuron, how often and how strongly each fires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from lape.data.texts import Source, Texts
from lape.errors import TextError
from lape.model.body import is_shared_out
from lape.model.editing import refuse_edited
from lape.options import keywords_of, select_options
from lape.progress import Progress, shown
from lape.recording.engine import Engine, RecordOptions, part_of
from lape.recording.engines.local import Local
from lape.recording.engines.parallel import Parallel, follows
from lape.recording.observers import refuse
from lape.recording.run import checked_texts, recorded
from lape.recording.weight_change import Tuned, checked_tuned
from lape.store import files
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class RecordArguments(RecordOptions):
    """What `record` takes besides a model, its tokenizer and texts."""

    tuned: Tuned | None = None
    """Language tag -> a checkpoint of this model that was tuned on it: see `lape.recording.weight_change`."""
    out: str | Path | None = None
    """The folder of the run."""
    overwrite: bool = False
    """Replace an existing folder."""
    about: Mapping[str, Any] | None = None
    """What else run.json is to say, by name."""
    progress: Progress = shown
    """Called with what is being done, how much of it is done, and of how much."""


@keywords_of(RecordArguments)
def record(
    model: PreTrainedModel | nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Texts, options: RecordArguments
) -> ActivationStats:
    """Record how often and how strongly every neuron fires in each language.

    `texts`: language tag -> path, glob, folder, `hf:NAME`, several of them, or `Documents`. The options are those of `RecordOptions`, where each is
    described. With `out`, the run is a folder: filled as `OUT.partial`, renamed when whole, and a run
    that was killed goes on where it was and ends with the same bits. `about`: what else its run.json is to say, by name.
    `tuned`: language tag -> a checkpoint of this model that was
    tuned on it; how far each neuron's weights moved is recorded too (see `lape.recording.weight_change`), which the method variation reads. A model that
    tensor parallelism shares out is recorded by all its processes, each of which gets the whole; `out` is the first one's.

    Gives counts (int64, in folds) of the tokens on which each neuron fires (its activation is above 0), and float64 sums of its activations: per
    neuron, never per token. Special tokens and padding do not count (Tang et al. 2024, section 2.2).

    Raises, before anything is computed where possible: TextError for a tag that is none or text that cannot be used, ModelError for a model that
    cannot be proven, OptionError for options that do not go together, FileError where `out` exists and `overwrite` is not given, or holds
    another run that was stopped, MismatchError for a tuned checkpoint of another model.

    Example:
        >>> stats = lape.record(model, tokenizer, {"en": "en.txt", "fr": "fr.txt"}, tokens=500)
        >>> stats.languages
        ['en', 'fr']
        >>> stats.probabilities().shape == (2, len(stats.space))
        True
    """
    chosen, progress = select_options(RecordOptions, options), options.progress
    out = None if follows(model) else options.out
    refuse_edited(model, "a recording")
    if part_of(chosen).of > 1:
        refuse("shards", chosen)
    if out is not None:
        files.refuse_existing(Path(out), options.overwrite)
    sources = checked_texts(texts)
    checkpoints = _checked_tuned(options.tuned, sources)

    def engine(folder: Path) -> Engine:
        if is_shared_out(model):
            refuse("parallel", chosen, "until", tuned=bool(checkpoints))
            return Parallel(model, tokenizer, chosen, folder=folder, progress=progress)
        resumable = out is not None
        return Local(model, tokenizer, chosen, tuned=checkpoints, folder=folder, resumable=resumable, progress=progress)

    return recorded(
        engine, tokenizer, sources, chosen, out=out, overwrite=options.overwrite, about=options.about, progress=progress
    )


def _checked_tuned(tuned: Tuned | None, sources: dict[str, Source]) -> dict[str, Any]:
    checkpoints = checked_tuned(tuned) if tuned else {}
    for language in checkpoints:
        if language not in sources:
            raise TextError(
                f"A checkpoint tuned on {language} was given, but no text. Recorded: {', '.join(sources)}. "
                f"Give both: texts={{'{language}': PATH}}, tuned={{'{language}': PATH}}."
            )
    return checkpoints
