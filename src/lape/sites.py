"""Where a model's neurons can be seen and changed: found by structure (`discover.py`), proven by running (`proof.py`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lape.errors import ModelError, OptionError
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


BY_HAND = (
    "If it has such neurons, name them: --sites 'model.layers.*.mlp.act_fn' 'model.layers.*.mlp.down_proj', "
    "or lape.sites.find(model, SiteNames(activation, down))."
)


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
    hidden: Tensor = out.last_hidden_state if hasattr(out, "last_hidden_state") else out[0]
    return hidden


def blocks(model: nn.Module, found: Sites) -> list[nn.Module]:
    """The decoder blocks that hold neurons, in order."""
    names = dict.fromkeys(_block_name(site.down, site.layer) for site in found.sites)
    return [unwrapped(model).get_submodule(name) for name in names]


def _block_name(down: str, layer: int) -> str:
    parts = down.split(".")
    return ".".join(parts[: parts.index(str(layer)) + 1])


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
        raise ModelError(
            f"{type(model).__name__} is not a Hugging Face model: it has no config. Load one with lape.load(...)."
        )
    return config.get_text_config()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While inside, no dropout; on leaving, every part is in the mode it was in."""
    training = [module for module in unwrapped(model).modules() if module.training]
    unwrapped(model).eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_fits(model: nn.Module, row_tokens: int, largest_id: int) -> None:
    """Refuse rows longer than the model's positions, and ids of another vocabulary."""
    config = text_config(model)
    most = getattr(config, "max_position_embeddings", None)
    if isinstance(most, int) and row_tokens > most:
        raise OptionError(
            f"Rows of {row_tokens} tokens are longer than the model's {most} positions. Type --row-tokens {most}."
        )
    embedding: Any = getattr(unwrapped(model), "get_input_embeddings", lambda: None)()
    size = getattr(embedding, "num_embeddings", None)
    if isinstance(size, int) and largest_id >= size:
        raise ModelError(
            f"The tokenizer gives id {largest_id}, but the model has {size} entries: they do not belong together."
        )


def find(model: nn.Module, names: SiteNames | None = None) -> Sites:
    """Find a model's neurons and prove them by running. Cached per model.

    Raises ModelError, saying what was found and how to name the sites by hand, for a model that cannot be proven.
    """
    from lape.discover import by_hand, discover
    from lape.proof import prove

    model = unwrapped(model)
    if names is None and model in _FOUND:
        return _FOUND[model]
    text_config(model)
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} is an encoder-decoder. lape works on decoder-only language models.")
    with torch.inference_mode(), evaluating(model):
        found = prove(model, by_hand(model, names) if names else discover(model))
    _FOUND[model] = found
    return found


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear` and what keeps its attributes (quantised layers), or a `Conv1D`."""
    return hasattr(module, "weight") and (
        (hasattr(module, "in_features") and hasattr(module, "out_features"))
        or (hasattr(module, "nf") and hasattr(module, "nx"))
    )


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


def down_norms(model: nn.Module, site: Site) -> Tensor:
    """‖column of the down projection‖² of each neuron of a site: float64 (width,), on the CPU."""
    linear: Any = unwrapped(model).get_submodule(site.down)
    weight: Tensor = linear.weight
    if not torch.is_floating_point(weight):  # 4- and 8-bit layers: read the matrix by running it
        device = weight.device
        eye = torch.eye(site.width, device=device, dtype=next(body(model).parameters()).dtype)
        columns: Tensor = linear(eye) - linear(torch.zeros_like(eye[:1]))
        return columns.cpu().double().square().sum(1)
    by_column = weight.detach().cpu().double().square()
    return by_column.sum(1 if hasattr(linear, "nx") else 0)


def forget_compiled() -> None:
    """Drop what torch has compiled: compiled code does not notice hooks that come and go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@contextmanager
def hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """While inside, hooks that were just registered act, on compiled models too; afterwards they are gone."""
    forget_compiled()
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        forget_compiled()


@contextmanager
def watching(model: nn.Module, sites: Sequence[Site], see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """While inside, `see(position in sites, activation (..., width))` is called at every site of every forward."""
    with hooked([handle for k, site in enumerate(sites) for handle in _watch(unwrapped(model), site, partial(see, k))]):
        yield


def _watch(model: nn.Module, site: Site, see: Callable[[Tensor], None]) -> list[RemovableHandle]:
    if site.rule == "activation":
        return [model.get_submodule(site.activation).register_forward_hook(lambda _m, _i, out: see(out))]
    down = model.get_submodule(site.down)
    if site.rule == "down input":
        return [down.register_forward_pre_hook(lambda _m, args: see(args[0]))]
    gate = _FunctionalGate.of(model, site)
    return [*gate.attach(), down.register_forward_pre_hook(lambda _m, _args: see(gate.activation()))]


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
    gate = _FunctionalGate.of(model, site)

    def rewrite(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (gate.rewrite(args[0], alter), *args[1:])

    return [*gate.attach(), down.register_forward_pre_hook(rewrite)]


class _FunctionalGate:
    """A gated MLP without an activation module: gate and up are remembered until the down projection has run, and where an
    activation changes, `value · up` is written into the down projection's input. All hooks of a site share one, so that
    each sees what those before it left.
    """

    _all: ClassVar[WeakKeyDictionary[nn.Module, _FunctionalGate]] = WeakKeyDictionary()

    def __init__(self, model: nn.Module, site: Site, gate: Branch, up: Branch) -> None:
        self._width, self._function, self._gate, self._up = site.width, FUNCTIONS[site.activation], gate, up
        names = dict.fromkeys((gate.module, up.module))
        self._modules = {name: ref(model.get_submodule(name)) for name in names}
        self._down = ref(model.get_submodule(site.down))
        self._out: dict[str, Tensor] = {}
        self._now: Tensor | None = None

    @classmethod
    def of(cls, model: nn.Module, site: Site) -> _FunctionalGate:
        down = model.get_submodule(site.down)
        if down not in cls._all:
            assert site.gate is not None  # the rule says so
            assert site.up is not None
            cls._all[down] = cls(model, site, site.gate, site.up)
        return cls._all[down]

    def attach(self) -> list[RemovableHandle]:
        handles = [
            module.register_forward_hook(partial(self._remember, name))
            for name, r in self._modules.items()
            if (module := r())
        ]
        down = self._down()
        return [*handles, down.register_forward_hook(self._forget)] if down is not None else handles

    def _remember(self, name: str, _module: nn.Module, _args: Any, out: Tensor) -> None:
        self._out[name] = out
        self._now = None

    def _forget(self, *_: Any) -> None:
        self._out.clear()
        self._now = None

    def activation(self) -> Tensor:
        if self._now is None:
            self._now = self._function(_part(self._out[self._gate.module], self._gate, self._width))
        return self._now

    def rewrite(self, given: Tensor, alter: Callable[[Tensor], Tensor]) -> Tensor:
        before = self.activation()
        self._now = after = alter(before)
        up = _part(self._out[self._up.module], self._up, self._width)
        return torch.where(after == before, given, after * up)
