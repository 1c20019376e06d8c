"""Edits: changes of activations while a model runs, of neurons or attention heads. `with edited(model, edits):` is the only way to change a model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lape.edit.positions import Positions, Tokens
from lape.errors import ModelError, OptionError
from lape.model.editing import editing
from lape.model.find import find
from lape.model.heads import find_heads
from lape.model.hooks import Alter, Rows, at_gate, change
from lape.model.identity import check_made_with
from lape.model.site import Site, Sites
from lape.model.weights import check_gate, preactivation
from lape.values.heads import HeadSpace
from lape.values.neurons import NeuronSet
from lape.values.same import check_same_model
from lape.values.space import NeuronSpace

At: TypeAlias = Literal["activation", "gate"]
"""Where a value is added: to the activation, or to what goes into the activation function (in a gated MLP, what its gate projection gives)."""


@dataclass(frozen=True, eq=False)
class Off:
    """Zero ablation: the activation is 0, so the neuron adds nothing to the residual stream.

    Example:
        >>> edit = lape.Off(neurons["fr"])
        >>> with lape.edited(model, edit):
        ...     logits = model(**tokenizer("fr02 fr03", return_tensors="pt")).logits
    """

    neurons: NeuronSet


@dataclass(frozen=True, eq=False)
class Set:
    """Clamping, and with mean activations mean ablation: the activation is `value`, in the activation's own unit, whatever the input.

    `value`: one number, or (neurons,) of the whole model, of which the set's own are taken; anything not finite is refused.

    Example:
        >>> mean_ablation = lape.Set(neurons["fr"], stats.mean("en"))
        >>> with lape.edited(model, mean_ablation):
        ...     logits = model(**tokenizer("fr02 fr03", return_tensors="pt")).logits
    """

    neurons: NeuronSet
    value: float | Tensor

    def __repr__(self) -> str:
        return f"Set({self.neurons}, value={_between(self)})"


@dataclass(frozen=True, eq=False)
class Add:
    """Activation addition in single neurons: the activation plus `strength` · `value`; `value` as in `Set`.

    Tang et al. (2024) steer by it, with the mean activation in the language to be written.

    `at="gate"`: the pre-activation is raised instead, by `strength` times the pre-activation whose activation is `value` (of two, the larger), so
    that `value` has the same unit. The neuron still responds to the text, and the first position of each text is left as it is: what massive
    activations there carry (Sun et al. 2024) is no text. Only this form of addition can be shipped as a LoRA of rank one: `lape.export`. Ours.

    Example:
        >>> with lape.edited(model, [lape.Off(neurons["en"]), lape.Add(neurons["fr"], stats.mean("fr"), strength=1.5)]):
        ...     logits = model(**tokenizer("en02 en03", return_tensors="pt")).logits
    """

    neurons: NeuronSet
    value: float | Tensor
    strength: float = 1.0
    at: At = "activation"

    def __repr__(self) -> str:
        where = "" if self.at == "activation" else f", at={self.at!r}"
        return f"Add({self.neurons}, value={_between(self)}, strength={self.strength:g}{where})"


@dataclass(frozen=True, eq=False)
class Scale:
    """The activation times `factor`: 0 is zero ablation, above 1 amplifies, below 0 turns the sign.

    Example:
        >>> lape.Scale(neurons["fr"], 2.0).factor
        2.0
    """

    neurons: NeuronSet
    factor: float


Edit: TypeAlias = Off | Set | Add | Scale


@contextmanager
def edited(
    model: nn.Module,
    edits: Edit | Sequence[Edit],
    *,
    tokens: Tokens = "both",
    first: int | None = None,
    fade: float = 1.0,
    spare: bool = False,
    isolated: bool = False,
) -> Iterator[nn.Module]:
    """Intervention on activations: inside the `with`, the model runs with the edits, applied in order; on leaving, exceptions included, it is
    what it was. Attention heads (`lape.model.heads.heads`) are edited as neurons are, but for what is added at the gate.

    `tokens`: edit all positions ("both"), those whose output picks a new token ("generated", the last prompt position
    included), or the others ("prompt"). `first`: of the generated ones only the first N, after which the model writes on
    by itself. `fade`: each generated position is changed by so much of the change of the one before. `spare`: leave the first position of each
    text as it is, whatever the edit; what is added at the gate does so in any case.

    It acts in every thread and task that runs the model. `isolated`: only in contexts (`contextvars`) in which it was entered, so that several
    requests may edit one model at the same time, each in its own way, while others run it unedited. asyncio tasks inherit their context; a thread is given
    one by `contextvars.copy_context().run`.

    Nests, and works in `generate` with cache, padding, beams and sampling, over `device_map`, and with 4- or 8-bit weights. A compiled model
    runs uncompiled while it is edited, and uses its compiled code again afterwards.

    Raises MismatchError for neurons of another model, OptionError for a value that does not fit.

    Example:
        >>> inputs = tokenizer("fr02 fr03", return_tensors="pt")
        >>> before = model(**inputs).logits
        >>> with lape.edited(model, [lape.Off(neurons["fr"]), lape.Scale(neurons["en"], 2.0)], tokens="generated", first=8):
        ...     answer = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        >>> bool((model(**inputs).logits == before).all())
        True
    """
    todo = list(edits) if isinstance(edits, Iterable) else [edits]
    everywhere = (tokens, first, fade) == ("both", None, 1.0)
    where = Positions(model, tokens, first, fade)
    parts = by_unit(model, todo)
    with ExitStack() as stack:
        alterations: dict[Site, Alter] = {}
        raised: dict[Site, Tensor] = {}
        for found, some in parts:
            altered = _alterations([edit for edit in some if not _at_gate(edit)], found.space)
            alterations |= {found.sites[k]: alter for k, alter in altered.items()}
            raised |= {found.sites[k]: by for k, by in raised_gates(model, some, found).items()}
        if not alterations and not raised:
            yield model
            return
        if raised or spare or not everywhere:
            stack.enter_context(where.followed(isolated=isolated))
        if spare or not everywhere:
            alterations = {site: where.only(alter, spare=spare) for site, alter in alterations.items()}
        raising = {site: where.only(_added(_Resident(by)), spare=True) for site, by in raised.items()}
        handles = [handle for site, alter in raising.items() for handle in at_gate(model, site, alter)]
        handles += [handle for site, alter in alterations.items() for handle in change(model, site, alter)]
        stack.enter_context(editing(model, handles, isolated=isolated))
        yield model


def by_unit(model: nn.Module, edits: Sequence[Edit]) -> list[tuple[Sites, list[Edit]]]:
    """Edits by what they are of, each with where that is: neurons (always first), and attention heads where some edit is of them.

    Refuses edits that do not fit a model's neurons or heads, or are of another model's; sets that were found together are compared once.
    """
    for one in edits:
        if not isinstance(one, (Off, Set, Add, Scale)):
            raise OptionError(f"{one!r:.80} is not an edit. Expected Off, Set, Add or Scale.")
    of_heads = [edit for edit in edits if isinstance(edit.neurons.space, HeadSpace)]
    parts = [(find(model), [edit for edit in edits if not isinstance(edit.neurons.space, HeadSpace)])]
    if of_heads:
        parts.append((find_heads(model), of_heads))
    for found, some in parts:
        for one in some:
            _check(one, found.space)
    for neurons in {id(one.neurons.manifest): one.neurons for one in edits}.values():
        check_made_with(model, neurons=neurons)
    return parts


def _check(edit: Edit, space: NeuronSpace) -> None:
    """Refuse an edit that does not fit a model's neurons, or heads."""
    check_same_model(neurons=edit.neurons, model=space)
    amount = edit.factor if isinstance(edit, Scale) else edit.strength if isinstance(edit, Add) else 1.0
    if not math.isfinite(amount):
        raise OptionError(f"{amount} is not a finite number. Expected a factor or strength such as 0.5.")
    if isinstance(edit, Add) and edit.at not in get_args(At):
        raise OptionError(f"at is {edit.at!r}. Expected {' or '.join(get_args(At))}.")
    if isinstance(edit, (Set, Add)):
        value = torch.as_tensor(edit.value)
        if value.dim() and value.shape != (len(space),):
            raise OptionError(
                f"The value has shape {tuple(value.shape)}. Expected one number, or ({len(space)},): one for each neuron of the model."
            )
        chosen = value[edit.neurons.flat] if value.dim() else value
        if not bool(torch.isfinite(chosen).all()):
            raise OptionError("The value is not finite for some of the neurons.")


def _alterations(edits: Sequence[Edit], space: NeuronSpace) -> dict[int, Alter]:
    """What the activations of each site go through that holds a touched neuron.

    Any sequence of edits is one affine map per neuron, a · keep + shift, and so one operation a site.
    """
    found = {}
    for position, (keep, shift) in affine(edits, space).items():
        if bool(((keep != 1) | (shift != 0)).any()):
            found[position] = _affine_map(_Resident(keep), _Resident(shift))
    return found


def _at_gate(edit: Edit) -> bool:
    return isinstance(edit, Add) and edit.at == "gate"


def raised_gates(model: nn.Module, edits: Sequence[Edit], found: Sites) -> dict[int, Tensor]:
    """By how much all edits together raise what goes into the activation function of each site that they touch there: (width,) float64 each, on
    the CPU. Raises OptionError where that cannot be changed, or for a value that no input gives.
    """
    raised: dict[int, Tensor] = {}
    for edit in edits:
        if not isinstance(edit, Add) or edit.at != "gate":
            continue
        for position, local in found.space.split(edit.neurons.flat).items():
            site, start = found.sites[position], found.space.stretches[position].start
            by = raised.setdefault(position, torch.zeros(site.width, dtype=torch.float64))
            try:
                if site.layout is None:
                    check_gate(site)
                value = preactivation(model, site, values_at(edit.value, local + start))
            except ModelError as error:
                raise OptionError(f"Nothing can be added at the gate of layer {site.layer}: {error}") from error
            by[local] += edit.strength * value
    return {position: by for position, by in raised.items() if bool(by.any())}


def _added(shift: _Resident) -> Alter:
    def added(a: Tensor, _rows: Rows) -> Tensor:
        return a + shift.on(a.device, a.dtype)

    return added


def _affine_map(keep: _Resident, shift: _Resident) -> Alter:
    def scaled(a: Tensor, _rows: Rows) -> Tensor:
        return a * keep.on(a.device, a.dtype)

    def both(a: Tensor, _rows: Rows) -> Tensor:
        return torch.addcmul(shift.on(a.device, a.dtype), a, keep.on(a.device, a.dtype))

    if bool((keep.tensor == 1).all()):
        return _added(shift)
    return both if bool(shift.tensor.any()) else scaled


def affine(edits: Sequence[Edit], space: NeuronSpace) -> dict[int, tuple[Tensor, Tensor]]:
    """What all edits together do to the activations of each site that they touch, a · keep + shift: (width,) float64 each, on the CPU."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for edit in edits:
        check_same_model(neurons=edit.neurons.space, model=space)
        for position, local in space.split(edit.neurons.flat).items():
            stretch = space.stretches[position]
            if position not in found:
                ones = torch.ones(stretch.width, dtype=torch.float64)
                found[position] = ones, torch.zeros_like(ones)
            keep, shift = found[position]
            if isinstance(edit, Add):
                shift[local] += edit.strength * values_at(edit.value, local + stretch.start)
                continue
            factor = edit.factor if isinstance(edit, Scale) else 0.0
            keep[local] *= factor
            shift[local] *= factor
            if isinstance(edit, Set):
                shift[local] = values_at(edit.value, local + stretch.start)
    return found


def values_at(value: float | Tensor, flat: Tensor) -> Tensor:
    """(n,) float64 on the CPU: an edit's value of some neurons, by their flat indices."""
    full = torch.as_tensor(value, dtype=torch.float64).cpu()
    return full[flat] if full.dim() else full.expand(len(flat))


def _between(edit: Set | Add) -> str:
    """The value, or from where to where the neurons' values lie."""
    value = torch.as_tensor(edit.value)
    found = value[edit.neurons.flat] if value.dim() else value
    if not found.numel():
        return "none"
    low, high = float(found.min()), float(found.max())
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


class _Resident:
    """A small tensor, kept on each device where it was needed."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def on(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (device, dtype)
        if key not in self._copies:
            with torch.inference_mode(False):  # a copy made for inference would be of no use where gradients are wanted
                self._copies[key] = self.tensor.to(dtype).to(device)
        return self._copies[key]
