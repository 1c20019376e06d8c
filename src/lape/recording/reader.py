"""All that watches a model while it reads one language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from lape.data.corpus import Corpus
from lape.data.windows import Batch
from lape.model.body import evaluating, run_batch
from lape.model.site import Sites
from lape.recording.counter import Recorder
from lape.recording.engine import RecordOptions
from lape.recording.observers import asked
from lape.recording.observers.observer import Setting


class Reader:
    """Runs batches, and holds what was counted in them: counts and sums, and what observers add."""

    def __init__(
        self,
        model: Any,
        found: Sites,
        options: RecordOptions,
        corpus: Corpus | None,
    ) -> None:
        self._model = model
        self._recorder = Recorder(model, found)
        setting = Setting(model, found, options, corpus)
        self._watchers = [one.watch(setting) for one in asked(options) if one.watch is not None]

    @property
    def tokens(self) -> int:
        """Counted so far."""
        return int(self._recorder.tokens.sum())

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, `read` may be called."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(evaluating(self._model))
            stack.enter_context(self._recorder.attached())
            for one in self._watchers:
                stack.enter_context(one.attached())
            yield

    def read(self, one: Batch) -> None:
        """Run a batch and count."""
        self._recorder.count(one.fold)
        for watcher in self._watchers:
            watcher.count(one)
        run_batch(self._model, one)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps. Raises ModelError where a site missed a forward, or an activation was not finite."""
        state = self._recorder.state()
        return state | {name: tensor for one in self._watchers for name, tensor in one.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._recorder.restore(state)
        for one in self._watchers:
            one.restore(state)

    def result(self) -> dict[str, Tensor]:
        """What `LanguageStats` keeps. Raises as `state` does."""
        result = self._recorder.state()
        return result | {name: tensor for one in self._watchers for name, tensor in one.result().items()}
