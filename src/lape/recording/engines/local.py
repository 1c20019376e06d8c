"""The engine of one process, which holds the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lape.data.corpus import Corpus
from lape.data.windows import batch
from lape.errors import FileError
from lape.model.body import device_of
from lape.model.compiled import Choice
from lape.model.find import find
from lape.model.identity import describe
from lape.progress import Progress
from lape.recording.adding import summed_by
from lape.recording.engine import CHOICE, Engine, RecordOptions, Work, check_texts
from lape.recording.engines.compiled import Readers
from lape.recording.observers import asked as observed
from lape.recording.observers.observer import Setting
from lape.recording.partials import keep, kept
from lape.recording.reader import Reader
from lape.recording.weight_change import compared
from lape.store.documents import Whole, read_json
from lape.store.files import dropped, write_json

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
        self._readers = Readers(model, self.found, options, Choice(False, "nothing was recorded"))

    def begin(self, every: Mapping[str, Work]) -> None:
        """Refuse rows and ids that the model has no place for, and settle whether to compile, unless a run that was stopped had."""
        check_texts(self.model, self.options, every)
        kept = self._kept_choice()
        if kept is None:
            self._readers.choose(every)
            self._keep_choice()
        else:
            self._readers.choice = kept

    @property
    def choice(self) -> Choice:
        """Whether what was counted was counted in one graph."""
        return self._readers.choice

    def how(self) -> dict[str, Any]:
        """Whether in one graph, and what made the sums."""
        return {"compiled": self.choice.to_json(), "sums": summed_by(device_of(self.model))}

    def _kept_choice(self) -> Choice | None:
        path = self.folder / CHOICE
        if not self.resumable or not path.exists():
            return None
        try:
            return Choice(**read_json(path, Whole({"graph": bool, "why": str})))
        except FileError as error:
            dropped(path, error)
            return None

    def _keep_choice(self) -> None:
        if self.resumable:
            write_json(self.folder / CHOICE, self.choice.to_json())

    def count(self, work: Work) -> dict[str, Tensor]:
        """Counts and sums of some batches, from where a checkpoint says that it was stopped."""
        corpus, options = work.corpus, self.options
        first = batch(corpus, work.batches[0]) if work.batches else None
        before = self.choice
        reader = self._readers.reader(corpus, first)
        if self.choice != before:
            self._keep_choice()
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
