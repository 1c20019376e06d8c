"""All that watches a model while it reads one language."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from lape.data.corpus import Batch, Corpus
from lape.model.body import evaluating, run_batch
from lape.model.site import Sites
from lape.recording.counter import Recorder, ResidualRecorder
from lape.recording.engine import RecordOptions
from lape.recording.observers import extras


class Reader:
    """Runs batches, and holds what was counted in them: counts and sums, and what the options ask for beside."""

    def __init__(self, model: Any, found: Sites, options: RecordOptions, corpus: Corpus | None) -> None:
        self._model = model
        self._recorder = Recorder(model, found)
        self._residual = ResidualRecorder(model, found) if options.residual else None
        self._extras = extras(model, found, options, corpus)

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
            for one in (self._recorder, self._residual, *self._extras):
                if one is not None:
                    stack.enter_context(one.attached())
            yield

    def read(self, one: Batch) -> None:
        """Run a batch and count."""
        self._recorder.count(one.fold)
        if self._residual:
            self._residual.weights = (one.fold.reshape(-1) >= 0).double()
        for extra in self._extras:
            extra.count(one)
        run_batch(self._model, one)

    def _counted(self) -> dict[str, Tensor]:
        state = self._recorder.state()
        if self._residual:
            state["residual"] = self._residual.total()
        return state

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps. Raises ModelError where a site missed a forward, or an activation was not finite."""
        return self._counted() | {name: tensor for extra in self._extras for name, tensor in extra.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self._recorder.restore(state)
        if self._residual:
            self._residual.sums = state["residual"].clone()
        for extra in self._extras:
            extra.restore(state)

    def result(self) -> dict[str, Tensor]:
        """What `LanguageStats` keeps. Raises as `state` does."""
        return self._counted() | {name: tensor for extra in self._extras for name, tensor in extra.result().items()}
