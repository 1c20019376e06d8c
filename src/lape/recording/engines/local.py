"""The engine of one process, which holds the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lape.data.corpus import Corpus
from lape.data.windows import batch
from lape.model.find import find
from lape.model.identity import describe
from lape.progress import Progress
from lape.recording.engine import Engine, RecordOptions, Work, check_texts
from lape.recording.observers import asked as observed
from lape.recording.observers.observer import Setting
from lape.recording.partials import keep, kept
from lape.recording.reader import Reader
from lape.recording.weight_change import compared

_KIND = "a checkpoint"


class Local(Engine):
    """Counts one language after the other, with checkpoints where the run has a folder that outlives it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        options: RecordOptions,
        *,
        tuned: Mapping[str, Any],
        folder: Path,
        resumable: bool,
        progress: Progress,
    ) -> None:
        self.model, self.options, self.progress = model, options, progress
        self.folder, self.resumable = folder, resumable
        self.found = find(model)
        self.space, self.packs = self.found.space, self.found.packs
        self._observers = observed(options, tuned=bool(tuned))
        for one in self._observers:
            if one.check is not None:
                one.check(model)
        self._moved = compared(model, tuned, progress=progress) if tuned else {}
        self.manifest = describe(model, tokenizer, options.bos)
        if tuned:
            self.manifest["tuned"] = {language: one.checkpoint for language, one in self._moved.items()}
        self.about = {"tuned": self.manifest.get("tuned")}

    def begin(self, every: Mapping[str, Work]) -> None:
        """Refuse rows and ids that the model has no place for."""
        check_texts(self.model, self.options, every)

    def count(self, work: Work) -> dict[str, Tensor]:
        """Counts and sums of some batches, from where a checkpoint says that it was stopped."""
        corpus, options = work.corpus, self.options
        reader = Reader(self.model, self.found, options, corpus)
        start = self._restore(work, reader)
        saved = time.monotonic()
        with reader.attached():
            for number in range(start, len(work.batches)):
                reader.read(batch(corpus, work.batches[number]))
                self.progress(f"recording {corpus.language}", reader.tokens, work.tokens)
                if self.resumable and time.monotonic() - saved >= options.checkpoint_seconds:
                    self._save(corpus, reader, number + 1)
                    saved = time.monotonic()
        more = options.until is not None or (self.resumable and any(one.after for one in self._observers))
        if more and start < len(work.batches):
            self._save(corpus, reader, len(work.batches))
        self.progress(f"recording {corpus.language}", work.tokens, work.tokens)
        return reader.result()

    def rest(self, corpus: Corpus, /) -> dict[str, Tensor]:
        """What observers find out once all batches are counted."""
        setting = Setting(self.model, self.found, self.options, corpus, progress=self.progress, tuned=self._moved)
        return {name: tensor for one in self._observers if one.after for name, tensor in one.after(setting).items()}

    def _path(self, corpus: Corpus) -> Path:
        return self.folder / f"{corpus.language}.checkpoint"

    def _save(self, corpus: Corpus, reader: Reader, done: int) -> None:
        keep(self._path(corpus), _KIND, reader.state(), done)

    def _restore(self, work: Work, reader: Reader) -> int:
        """The number of the first batch that is still to be read."""
        path = self._path(work.corpus)
        found = kept(path, _KIND, work, self.space, reader.state()) if path.exists() else None
        if found is None:
            return 0
        reader.restore(dict(found[1]))
        return found[0]
