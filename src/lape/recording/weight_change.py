"""How far tuning on a language moved each neuron's weights: δ = ‖ΔW‖ / ‖W‖.

A comparison in Tang et al. 2024 ("PV", parameter variation) looks at how parameters change under tuning on one language. Its exact
definition could not be found; this one is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from lape.data.languages import tagged
from lape.errors import MismatchError, ModelError, OptionError
from lape.model.body import unwrapped
from lape.model.experts import Layout
from lape.model.find import find
from lape.model.identity import checksum
from lape.model.load import load_weights
from lape.model.site import Site
from lape.model.weights import has_adapter
from lape.progress import Progress, shown
from lape.values.quantity import plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tuned: TypeAlias = Mapping[str, Any]
"""Language tag -> a checkpoint tuned on it: a path, a Hugging Face id, or a loaded model."""
_COARSER = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class WeightChange:
    """What tuning on one language did to the weights."""

    delta: Tensor
    """(neurons,) float64: ‖ΔW‖ / ‖W‖."""
    checkpoint: dict[str, str]
    """Which checkpoint: `id`, and the `checksum` over its parameters as they were compared."""


def weight_changes(
    model: PreTrainedModel | nn.Module, tuned: Tuned, *, progress: Progress = shown
) -> dict[str, Tensor]:
    """How far tuning moved each neuron: language -> (neurons,) float64, δ = ‖ΔW‖ / ‖W‖ (ours).

    W is a neuron's row of the gate (or first) projection, its row of the up projection if there is one, and its column of the
    down projection, taken together; biases are left out. A neuron without weights in the base has δ = 0.

    Checkpoints given as paths are loaded one at a time, on the CPU, in float32 (float64 where the base is). The base must be as
    exact as they are: load one that was tuned in float32 beside a base in float32 (`lape.load(name, dtype="float32")`), or what
    is measured is rounding.

    Raises MismatchError for a checkpoint of another architecture or shape, of another number format, or identical to the
    base; ModelError for weights that are quantised or not finite; TextError for a tag that is none; OptionError where no checkpoint is given.

    Example:
        >>> import copy
        >>> from lape.recording.weight_change import weight_changes
        >>> tuned = copy.deepcopy(model)
        >>> for weights in tuned.model.layers[1].mlp.parameters():
        ...     weights.data *= 1.1
        >>> changes = weight_changes(model, {"fr": tuned})["fr"]
        >>> [round(float(changes[space.start]), 3) for space in stats.space]
        [0.0, 0.1]
    """
    return {language: change.delta for language, change in compared(model, tuned, progress=progress).items()}


def compared(
    model: PreTrainedModel | nn.Module, tuned: Tuned, *, progress: Progress = shown
) -> dict[str, WeightChange]:
    """`weight_changes`, and which checkpoints they are of."""
    checked = checked_tuned(tuned)
    base = _Base(unwrapped(model))
    found: dict[str, WeightChange] = {}
    for language, source in checked.items():
        name = f"{language}={_name_of(source)}"
        other = unwrapped(source) if isinstance(source, nn.Module) else _loaded(base.model, source, progress)
        _same_shapes(base.model, other, name)
        delta = base.changed(other, name, partial(progress, f"comparing weights {language}"))
        found[language] = WeightChange(delta, {"id": _name_of(source), "checksum": checksum(other)})
        del other  # one at a time
    return found


def checked_tuned(tuned: Tuned) -> dict[str, Any]:
    """Checkpoints by standard tag. Raises TextError for a tag that is none or comes twice, OptionError where there is none."""
    if not isinstance(tuned, Mapping) or not tuned:
        raise OptionError('No tuned checkpoints were given. Expected one for each language: {"fr": "PATH", …}.')
    return dict(tagged(tuned, "Two tuned checkpoints were given for {tag}. Expected one for each language."))


def _name_of(source: Any) -> str:
    if isinstance(source, nn.Module):
        return str(getattr(getattr(source, "config", None), "_name_or_path", "") or type(source).__name__)
    return str(source)


def _loaded(base: nn.Module, source: str | Path, progress: Progress) -> nn.Module:
    double = next(base.parameters()).dtype == torch.float64
    model: nn.Module = load_weights(source, dtype="float64" if double else "float32", device="cpu", progress=progress)
    return model


def _same_shapes(base: nn.Module, other: nn.Module, name: str) -> None:
    ours, theirs = (
        {"the class": type(one).__name__, **{k: tuple(p.shape) for k, p in one.named_parameters()}}
        for one in (base, other)
    )
    for key in (*ours, *theirs):
        if ours.get(key) != theirs.get(key):
            raise MismatchError(
                f"The tuned checkpoint {name} is of another architecture or shape: {key} is {theirs.get(key, 'missing')} there and "
                f"{ours.get(key, 'missing')} in the base. Expected this very model, tuned. Adapters have to be merged first."
            )


class _Base:
    """The model before tuning, and the site of each stretch of its neurons."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        found = find(model)
        self.space, self.sites = found.space, found.sites
        unknown = [site.layer for site in self.sites if site.gate is None and site.layout is None]
        if unknown:
            raise ModelError(
                f"The sites of layers {unknown[0]} to {unknown[-1]} were named by hand or have adapters, so which rows of which projection make a "
                "neuron is not known. Weights are compared only in models whose sites lape finds itself."
            )

    def changed(self, other: nn.Module, name: str, progress: Any) -> Tensor:
        """(neurons,) float64 δ of another checkpoint. Raises MismatchError where it says nothing."""
        delta = torch.zeros(len(self.space), dtype=torch.float64)
        formats = _Formats()
        for done, (site, stretch) in enumerate(zip(self.sites, self.space, strict=True), 1):
            moved, size = torch.zeros(2, stretch.width, dtype=torch.float64)
            for ours, theirs in zip(_weights(self.model, site), _weights(other, site), strict=True):
                formats.see(ours, theirs)
                before, after = ours.cpu().double(), theirs.cpu().double()
                moved += (after - before).square().sum(1)
                size += before.square().sum(1)
            delta[stretch.start : stretch.stop] = torch.where(size > 0, (moved / size).sqrt(), 0.0)
            progress(done, len(self.sites))
        if not bool(delta.isfinite().all()):
            raise ModelError(
                f"The base or {name} holds weights that are not finite: the tuning went wrong. Tune it again with a lower learning rate."
            )
        if not bool(delta.any()):
            raise MismatchError(
                f"The tuned checkpoint {name} is identical to the base: not one MLP weight differs. Expected one whose MLPs were "
                "tuned on the language."
            )
        formats.check(name)
        return delta


def _weights(model: nn.Module, site: Site) -> Iterator[Tensor]:
    """(width, …) each: gate rows, up rows where there are some, down columns."""
    if site.layout is not None and site.expert is not None:
        yield from _expert_weights(model.get_submodule(site.down), site.layout, site.expert)
        return
    for branch in (site.gate, site.up):
        if branch is not None:
            yield _matrix(model, branch.module)[branch.offset : branch.offset + site.width]
    yield _matrix(model, site.down).T


def _expert_weights(module: nn.Module, layout: Layout, expert: int) -> Iterator[Tensor]:
    rows = layout.gate_rows(module, expert), layout.up_rows(module, expert)
    for one in (*rows, layout.down.weight(module, expert).T):
        if one is not None:
            if not one.is_floating_point():
                raise ModelError(
                    f"The experts are quantised to {one.dtype}, so changes of their weights cannot be read."
                )
            yield one.detach()


def _matrix(model: nn.Module, name: str) -> Tensor:
    """(out, in): a linear layer's weight."""
    linear: Any = model.get_submodule(name)
    if has_adapter(linear):
        raise ModelError(f"{name} has an adapter. Merge it first: model = model.merge_and_unload().")
    weight: Tensor = linear.weight.detach()
    if not weight.is_floating_point():
        raise ModelError(
            f"{name} is quantised to {weight.dtype}, so changes of its weights cannot be read. Load the model in float32."
        )
    return weight.T if hasattr(linear, "nx") else weight  # Conv1D keeps (in, out)


@dataclass
class _Formats:
    """Whether two checkpoints' numbers are equally exact: rounding one of them would pass for tuning."""

    dtype: torch.dtype = torch.float64
    ours: set[torch.dtype] = field(default_factory=lambda: set(_COARSER))
    """The coarser formats that hold all of the base's numbers exactly."""
    theirs: set[torch.dtype] = field(default_factory=lambda: set(_COARSER))

    def see(self, ours: Tensor, theirs: Tensor) -> None:
        self.dtype = ours.dtype
        self.ours = {dtype for dtype in self.ours if _holds(dtype, ours)}
        self.theirs = {dtype for dtype in self.theirs if _holds(dtype, theirs)}

    def check(self, name: str) -> None:
        if self.dtype in _COARSER and self.dtype not in self.theirs:
            raise MismatchError(
                f"The base was loaded in {plain(self.dtype)}, but the tuned checkpoint {name} holds numbers of higher precision, and rounding would "
                f"be mistaken for tuning. Load the base in float32: dtype='float32'."
            )
        alike = (self.ours & self.theirs) - {torch.float32}  # half precision, both
        rounded = self.theirs - self.ours
        if rounded and not alike:
            coarse = " or ".join(sorted(map(plain, rounded)))
            raise MismatchError(
                f"The tuned checkpoint {name} was rounded to {coarse}, but the base was not, and rounding would be mistaken for tuning. "
                f"Save the tuned checkpoint in {plain(self.dtype)}."
            )


def _holds(dtype: torch.dtype, values: Tensor) -> bool:
    return values.dtype == dtype or torch.equal(values.to(dtype).to(values.dtype), values)
