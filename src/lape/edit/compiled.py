"""Any edits in one compiled graph: they are data in tensors, so that another edit is never another graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lape.data.corpus import TextOptions
from lape.data.windows import Batch
from lape.edit.edit import Edit, Off, affine, edited
from lape.errors import ModelError
from lape.model.body import body, evaluating, run_batch
from lape.model.compiled import Fixed
from lape.model.hooks import Rows, change, held, reset_compile_cache
from lape.model.site import Sites
from lape.values.neurons import NeuronSet

_NEAR = {torch.float64: 1e-5, torch.float32: 1e-4}
"""How far hidden states may lie from those of the model as it is, as a share of their mean size: rounding only. 0.1 in half precision."""


class EditedGraph:
    """Runs batches with any edits: at every site, activation · keep + shift."""

    def __init__(self, model: Any, found: Sites, options: TextOptions) -> None:
        self._model, self._found = model, found
        self._fixed = Fixed(model, found, options)
        dtype = next(body(model).parameters()).dtype
        width = [site.width for site in found.sites]
        self._keep = [torch.ones(one, dtype=dtype, device=self._fixed.device) for one in width]
        self._shift = [torch.zeros(one, dtype=dtype, device=self._fixed.device) for one in width]
        self._run = torch.compile(self._fixed.forward, dynamic=False)
        reset_compile_cache()

    @contextmanager
    def edited(self, edits: Sequence[Edit]) -> Iterator[None]:
        """While inside, `run` runs with these edits."""
        for keep, shift in zip(self._keep, self._shift, strict=True):
            keep.fill_(1)
            shift.fill_(0)
        for k, (keep, shift) in affine(edits, self._found.space).items():
            self._keep[k].copy_(keep)
            self._shift[k].copy_(shift)
        sites = enumerate(self._found.sites)
        with held([handle for k, site in sites for handle in change(self._model, site, self._alter(k))], in_graph=True):
            yield

    def _alter(self, k: int) -> Any:
        keep, shift = self._keep[k], self._shift[k]

        def alter(a: Tensor, _rows: Rows) -> Tensor:
            return torch.addcmul(shift, a, keep)

        return alter

    def run(self, one: Batch) -> Tensor:
        """(rows, tokens, width) hidden states of a batch."""
        rows, tokens = one.input_ids.shape
        return self._run(*self._fixed.arguments(one))[:rows, :tokens]

    @torch.inference_mode()
    def proven(self, one: Batch) -> EditedGraph:
        """Itself, after a batch with and without the graph, unedited and with all neurons off. Raises whatever torch raises, and
        ModelError where hidden states differ by more than rounding.
        """
        everything = NeuronSet(self._found.space, torch.arange(len(self._found.space)))
        near = _NEAR.get(self._keep[0].dtype, 0.1)
        text = one.source >= 0
        expected = []
        with evaluating(self._model):
            ways: tuple[tuple[Edit, ...], ...] = ((), (Off(everything),))
            for edits in ways:  # all of them first: torch drops its graphs where a model is edited
                with edited(self._model, edits):
                    expected.append(run_batch(self._model, one)[text].double())
            for edits, without in zip(ways, expected, strict=True):
                with self.edited(edits):
                    ours = self.run(one)[text].double()
                share = float((ours - without).abs().mean() / without.abs().mean())
                if not share <= near:
                    raise ModelError(f"its hidden states are off by {share:.2g} of their mean size")
        return self
