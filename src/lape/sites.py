"""Where a model's neurons can be seen and changed: found by structure, then proven by running (`proof.py`).

No rule here knows a model by its name. One tiny forward shows which tensors the modules of a decoder block exchange;
the MLP is the place where the input of a linear layer equals an activation of another linear layer's output
(plain), or that times a third one's output (gated).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lape.errors import ModelError
from lape.space import NeuronSpace

Rule = Literal["activation", "down input", "gate output"]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
"""Functional activations that are tried where a model has no activation module; the one that fits best is taken."""


@dataclass(frozen=True)
class Branch:
    """`width` outputs of a linear layer, from `offset` on (a fused gate-and-up projection has two branches)."""

    module: str
    offset: int


@dataclass(frozen=True)
class Site:
    """The place where the activations of one stretch of neurons are seen and changed. Modules are dotted names."""

    layer: int
    expert: int | None
    width: int
    rule: Rule
    """What is hooked: an activation module's output, the down projection's input, or the gate projection's output."""
    activation: str
    """The activation module, or the name of one of `FUNCTIONS`."""
    gate: Branch | None
    up: Branch | None
    down: str


@dataclass(frozen=True)
class Sites:
    """All sites of a model, in layer order, and what running it proved."""

    space: NeuronSpace
    sites: tuple[Site, ...]
    packs: bool
    """Whether position ids that restart keep documents in one row apart."""
    checked: tuple[str, ...] = ()
    """What was proven, in words, for `lape doctor`."""


@dataclass(frozen=True)
class SiteNames:
    """Sites named by hand, for a model whose structure is not recognised: `*` stands for the layer number."""

    activation: str
    """Module whose output is the activation, such as `model.layers.*.mlp.act_fn`."""
    down: str
    """Linear layer that reads it, such as `model.layers.*.mlp.down_proj`."""


@dataclass
class _Event:
    """One call of a module in the tiny forward."""

    name: str
    module: nn.Module
    given: Tensor
    out: Tensor


_FOUND: WeakKeyDictionary[nn.Module, Sites] = WeakKeyDictionary()


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself where `torch.compile` wrapped it."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def body(model: nn.Module) -> nn.Module:
    """The part of a causal language model below its LM head."""
    base = getattr(unwrapped(model), "base_model", None)
    return base if isinstance(base, nn.Module) else unwrapped(model)


def hidden_states(model: nn.Module, input_ids: Tensor, **kwargs: Any) -> Tensor:
    """Run the body alone: (batch, tokens) ids -> (batch, tokens, width) last hidden states, LM head not run."""
    out = body(model)(input_ids=input_ids, use_cache=False, **kwargs)
    hidden = getattr(out, "last_hidden_state", None)
    return hidden if isinstance(hidden, Tensor) else out[0]


def tiny_ids(model: nn.Module, rows: int = 2, length: int = 12) -> Tensor:
    """A few fixed pseudo-random token ids, (rows, length), on the model's device."""
    vocabulary = text_config(model).vocab_size
    generator = torch.Generator().manual_seed(20240226)
    ids = torch.randint(vocabulary // 8, vocabulary, (rows, length), generator=generator)
    return ids.to(next(body(model).parameters()).device)


def text_config(model: nn.Module) -> Any:
    """The configuration of the text model."""
    config: Any = getattr(unwrapped(model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(f"{type(model).__name__} is not a Hugging Face model: it has no config. Load one with lape.load(...).")
    return config.get_text_config()


def find(model: nn.Module, names: SiteNames | None = None) -> Sites:
    """Find a model's neurons and prove them by running. Cached per model.

    Raises ModelError, saying what was found and how to name the sites by hand, for a model that cannot be proven.
    """
    from lape.proof import prove

    model = unwrapped(model)
    if names is None and model in _FOUND:
        return _FOUND[model]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            found = prove(model, _by_hand(model, names) if names else _discover(model))
    finally:
        model.train(training)
    _FOUND[model] = found
    return found


def _discover(model: nn.Module) -> tuple[Site, ...]:
    if getattr(unwrapped(model).config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder. lape works on decoder-only language models.")
    blocks = _blocks(model)
    sites, missing = [], []
    for layer, events in enumerate(blocks):
        site = _site_of(layer, events)
        if site is None:
            missing.append(layer)
        else:
            sites.append(site)
    if missing:
        kinds = sorted({type(event.module).__name__ for layer in missing for event in blocks[layer]})
        raise ModelError(
            f"No MLP neurons were found in layers {_few(missing)} of {type(model).__name__} ({len(blocks)} layers); modules that ran "
            f"there: {', '.join(kinds)}. Expected a linear layer whose input is an activation of another linear layer's output. "
            + BY_HAND
        )
    return tuple(sites)


BY_HAND = (
    "If it has such neurons, name them: --sites 'model.layers.*.mlp.act_fn' 'model.layers.*.mlp.down_proj', "
    "or lape.sites.find(model, SiteNames(activation, down))."
)


def _few(layers: Sequence[int]) -> str:
    shown = ", ".join(map(str, layers[:6]))
    return shown + (" …" if len(layers) > 6 else "")


def _blocks(model: nn.Module) -> list[list[_Event]]:
    """The calls of the leaf modules of each decoder block, in order of running."""
    depth = getattr(text_config(model), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in body(model).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    lists.sort(key=lambda item: item[0].count("."))
    prefix = _prefix(model)
    for name, blocks in lists:
        leaves = {
            f"{prefix}{name}.{i}.{inner}": (i, module)
            for i, block in enumerate(blocks)
            for inner, module in block.named_modules()
            if inner and not any(True for _ in module.children())
        }
        calls = _run_tiny(model, {leaf: module for leaf, (_, module) in leaves.items()})
        grouped: list[list[_Event]] = [[] for _ in blocks]
        for event in calls:
            grouped[leaves[event.name][0]].append(event)
        if all(grouped):
            return grouped
    raise ModelError(
        f"{type(model).__name__} has no list of {depth} decoder blocks that run when it reads text, so no MLP neurons were found. " + BY_HAND
    )


def _prefix(model: nn.Module) -> str:
    """The dotted path from the model to its body."""
    inner = body(model)
    return next((f"{name}." if name else "" for name, module in unwrapped(model).named_modules() if module is inner), "")


def _run_tiny(model: nn.Module, modules: dict[str, nn.Module]) -> list[_Event]:
    events: list[_Event] = []

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if given is not None and isinstance(out, Tensor) and given.is_floating_point():
            events.append(_Event(name, module, given.detach().clone(), out.detach().clone()))

    handles = [module.register_forward_hook(partial(note, name), with_kwargs=True) for name, module in modules.items()]
    try:
        hidden_states(model, tiny_ids(model))
    finally:
        for handle in handles:
            handle.remove()
    return events


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear` and what keeps its attributes (quantised layers), or a `Conv1D`."""
    return hasattr(module, "weight") and ((hasattr(module, "in_features") and hasattr(module, "out_features")) or (hasattr(module, "nf") and hasattr(module, "nx")))


def _site_of(layer: int, events: list[_Event]) -> Site | None:
    """The MLP of one block: the last linear layer whose input is explained by one of the three rules."""
    for position in range(len(events) - 1, -1, -1):
        down = events[position]
        if is_linear(down.module):
            site = _explain(layer, down, events[:position])
            if site is not None:
                return site
    return None


def _explain(layer: int, down: _Event, earlier: list[_Event]) -> Site | None:
    x = down.given.flatten(0, -2)
    width = x.shape[-1]
    branches = list(_branches(earlier, width, len(x)))
    by_module = [
        (event, branch)
        for event in earlier
        if not is_linear(event.module) and event.out.shape[-1] == width
        for branch, value in branches
        if close(event.given.flatten(0, -2), value) and _elementwise(event)
    ]
    for event, gate in by_module:
        a = event.out.flatten(0, -2)
        if close(a, x):
            return Site(layer, None, width, "activation", event.name, gate, None, down.name)
        for up, u in branches:
            if up != gate and close(a * u, x):
                return Site(layer, None, width, "activation", event.name, gate, up, down.name)
    return _explain_by_function(layer, down.name, x, branches)


def _explain_by_function(layer: int, down: str, x: Tensor, branches: list[tuple[Branch, Tensor]]) -> Site | None:
    """No activation module fits: try `x == f(gate)` and `x == f(gate) · up`, and keep the closest."""
    tried: list[tuple[float, Site]] = []
    width = x.shape[-1]
    for name, function in FUNCTIONS.items():
        for gate, value in branches:
            a = function(value)
            if close(a, x):
                tried.append((gap(a, x), Site(layer, None, width, "down input", name, gate, None, down)))
            tried += [
                (gap(a * u, x), Site(layer, None, width, "gate output", name, gate, up, down))
                for up, u in branches
                if up != gate and close(a * u, x)
            ]
    return min(tried, key=lambda item: item[0])[1] if tried else None


def _branches(events: list[_Event], width: int, rows: int) -> Iterator[tuple[Branch, Tensor]]:
    for event in events:
        if is_linear(event.module) and event.out.shape[-1] in (width, 2 * width):
            out = event.out.flatten(0, -2)
            for offset in range(0, out.shape[-1], width):
                if len(out) == rows:
                    yield Branch(event.name, offset), out[:, offset : offset + width]


def _elementwise(event: _Event) -> bool:
    """Whether a module acts on each number alone, and does something: true of activations, not of norms or dropout."""
    if event.given.shape != event.out.shape or torch.equal(event.given, event.out):
        return False
    with suppress(RuntimeError, ValueError, TypeError):
        part = event.module(event.given[..., :1])
        return isinstance(part, Tensor) and part.shape == event.out[..., :1].shape and close(part, event.out[..., :1])
    return False


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    scale = b.abs().amax()
    return float((a - b).abs().amax() / scale) if scale > 0 else float("inf")


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of the dtype."""
    return a.shape == b.shape and gap(a, b) <= tolerance(b.dtype)


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of the same thing may lie apart."""
    return 64 * torch.finfo(dtype).eps if dtype in (torch.float32, torch.float64) else 4 * torch.finfo(dtype).eps


def _by_hand(model: nn.Module, names: SiteNames) -> tuple[Site, ...]:
    from fnmatch import fnmatchcase

    modules = dict(unwrapped(model).named_modules())
    activations = [name for name in modules if fnmatchcase(name, names.activation)]
    downs = [name for name in modules if fnmatchcase(name, names.down)]
    if not activations or len(activations) != len(downs):
        raise ModelError(
            f"{names.activation!r} names {len(activations)} modules and {names.down!r} names {len(downs)}; expected as many of each, one per layer."
        )
    widths = [_width_in(modules[down]) for down in downs]
    return tuple(
        Site(layer, None, width, "activation", activation, None, None, down)
        for layer, (activation, down, width) in enumerate(zip(activations, downs, widths, strict=True))
    )


def _width_in(linear: nn.Module) -> int:
    if not is_linear(linear):
        raise ModelError(f"{type(linear).__name__} is not a linear layer; expected the down projection that reads the activation.")
    return int(getattr(linear, "in_features", None) or linear.nx)  # type: ignore[arg-type]


def down_norms(model: nn.Module, site: Site) -> Tensor:
    """‖column of the down projection‖² of each neuron of a site: float64 (width,), on the CPU."""
    linear = unwrapped(model).get_submodule(site.down)
    weight: Any = linear.weight
    if not torch.is_floating_point(weight):  # 4- and 8-bit layers: read the matrix by running it
        device = weight.device
        eye = torch.eye(site.width, device=device, dtype=next(body(model).parameters()).dtype)
        return (linear(eye) - linear(torch.zeros_like(eye[:1]))).double().square().sum(1).cpu()
    by_column = weight.detach().double().square()
    return by_column.sum(1 if hasattr(linear, "nx") else 0).cpu()


@contextmanager
def watching(model: nn.Module, sites: Sequence[Site], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While inside, `see(position in sites, activation (..., width))` is called at every site of every forward."""
    handles = [_watch(unwrapped(model), site, partial(see, k)) for k, site in enumerate(sites)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(model: nn.Module, site: Site, see: Callable[[Tensor], None]) -> RemovableHandle:
    if site.rule == "activation":
        return model.get_submodule(site.activation).register_forward_hook(lambda _m, _i, out: see(out))
    if site.rule == "down input":
        return model.get_submodule(site.down).register_forward_pre_hook(lambda _m, args: see(args[0]))
    gate, function = site.gate, FUNCTIONS[site.activation]
    assert gate is not None  # the rule says so
    return model.get_submodule(gate.module).register_forward_hook(lambda _m, _i, out: see(function(_part(out, gate, site.width))))


def _part(out: Tensor, branch: Branch, width: int) -> Tensor:
    return out[..., branch.offset : branch.offset + width]


def change(model: nn.Module, site: Site, alter: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """Put `alter(activation) -> activation` (shape and dtype kept, not in place) into every forward; undo by the handles."""
    model = unwrapped(model)
    if site.rule == "activation":
        return [model.get_submodule(site.activation).register_forward_hook(lambda _m, _i, out: alter(out))]
    down = model.get_submodule(site.down)
    if site.rule == "down input":
        return [down.register_forward_pre_hook(lambda _m, args: (alter(args[0]), *args[1:]))]
    return _change_functional(model, site, down, alter)


def _change_functional(model: nn.Module, site: Site, down: nn.Module, alter: Callable[[Tensor], Tensor]) -> list[RemovableHandle]:
    """A gate without an activation module: remember gate and up, and write `value · up` where the value changed."""
    gate, up, function = site.gate, site.up, FUNCTIONS[site.activation]
    assert gate is not None  # the rule says so
    assert up is not None
    seen: dict[str, Tensor] = {}

    def remember(module: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _m, _i, out: seen.__setitem__(module, out)

    def rewrite(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        before = function(_part(seen[gate.module], gate, site.width))
        after = alter(before)
        u = _part(seen[up.module], up, site.width)
        return (torch.where(after == before, args[0], after * u), *args[1:])

    handles = [model.get_submodule(name).register_forward_hook(remember(name)) for name in dict.fromkeys((gate.module, up.module))]
    return [*handles, down.register_forward_pre_hook(rewrite)]
