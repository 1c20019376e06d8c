"""Where a model's neurons can be seen and changed: found by structure (`discover.py`), proven by running (`proof.py`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from lape.errors import ModelError, OptionError
from lape.model.experts import Layout, activation_of
from lape.values.space import NeuronSpace

Rule: TypeAlias = Literal["activation", "down input", "gate output", "experts"]
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
    plain: bool = True
    """Whether they are used as they are; False where the model scales or clamps them first."""


@dataclass(frozen=True)
class Site:
    """The place where the activations of one stretch of neurons are seen and changed. Modules are dotted names."""

    layer: int
    """The decoder blocks are numbered in the order in which they run."""
    expert: int | None
    width: int
    rule: Rule
    """What is hooked: an activation module's output, the down projection's input, the gate projection's output, or routed experts."""
    activation: str
    """The activation module, the name of one of `FUNCTIONS`, or the experts' module."""
    gate: Branch | None
    up: Branch | None
    down: str
    """The down projection, or the experts' module."""
    block: str
    """The decoder block."""
    turn: int = 0
    runs: int = 1
    """Of the `runs` times that the down projection runs in a forward (blocks may share it), the one this site is, from 0 on."""
    activation_turn: int = 0
    activation_runs: int = 1
    """The same for the activation module."""
    layout: Layout | None = None
    """How the experts' module holds them."""
    limit: float | None = None
    """Of an activation computed by a function: the gate is clamped from above by it, up on both sides."""
    plus: float = 0.0
    """And what is added to up."""
    norm: str | None = None
    """The module between the activation (times up) and the down projection, if there is one."""

    @property
    def reader(self) -> str:
        """The module whose input is the activation (times up)."""
        return self.norm or self.down


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
    "or lape.model.site.find(model, SiteNames(activation, down))."
)


_FOUND: WeakKeyDictionary[nn.Module, Sites] = WeakKeyDictionary()


def space_of(sites: Iterable[Site]) -> NeuronSpace:
    """The axis over all neurons of some sites, in their order."""
    return NeuronSpace.of((site.layer, site.expert, site.width) for site in sites)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself where `torch.compile` or peft wrapped it."""
    inner = getattr(model, "_orig_mod", model)
    base: Any = getattr(inner, "get_base_model", None)  # adapters of peft: their layers act within the model itself
    inner = inner if base is None else base()
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
    """The decoder blocks that hold neurons, in order. Raises ModelError where one of them runs more than once in a forward."""
    by_layer = {site.layer: site.block for site in found.sites}
    if len(set(by_layer.values())) < len(by_layer):
        raise ModelError(
            f"Decoder blocks of {type(unwrapped(model)).__name__} run more than once in a forward, so their residual stream is not recorded."
        )
    return [unwrapped(model).get_submodule(name) for name in by_layer.values()]


def tiny_ids(model: nn.Module, rows: int = 2, length: int = 12) -> Tensor:
    """A few fixed pseudo-random token ids, (rows, length), on the model's device."""
    vocabulary = text_config(model).vocab_size
    generator = torch.Generator().manual_seed(20240226)
    ids = torch.randint(vocabulary // 8, vocabulary, (rows, length), generator=generator)
    return ids.to(next(body(model).parameters()).device)


def is_shared_out(model: nn.Module) -> bool:
    """Whether several processes hold a model's weights together."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def text_config(model: nn.Module) -> Any:
    """The configuration of the text model."""
    config: Any = getattr(unwrapped(model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(
            f"{type(model).__name__} is not a Hugging Face model: it has no config. Load one with lape.load(...)."
        )
    return config.get_text_config(decoder=True)


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
    from lape.model.discover import by_hand, discover
    from lape.model.verify import prove

    model = unwrapped(model)
    if names is None and model in _FOUND:
        return _FOUND[model]
    if is_shared_out(model):
        raise ModelError(
            f"{type(model).__name__} is shared out among processes, where its neurons can be recorded only. Load it with device_map instead."
        )
    text_config(model)
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise ModelError(f"{type(model).__name__} is an encoder-decoder. lape works on decoder-only language models.")
    with torch.inference_mode(), evaluating(model), each_row_alone(model):
        found = prove(model, by_hand(model, names) if names else discover(model))
    _FOUND[model] = found
    return found


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer: `nn.Linear` and what keeps its attributes (quantised layers), or a `Conv1D`."""
    return hasattr(module, "weight") and (
        (hasattr(module, "in_features") and hasattr(module, "out_features"))
        or (hasattr(module, "nf") and hasattr(module, "nx"))
    )


def limited(x: Tensor, limit: float | None, *, above_only: bool = False) -> Tensor:
    """Clamped to ±limit, or from above alone."""
    if limit is None:
        return x
    return x.clamp(max=limit) if above_only else x.clamp(-limit, limit)


def has_adapter(linear: nn.Module) -> bool:
    """Whether a linear layer holds parts of its own, such as an adapter's, that add to what its weight gives."""
    return any(True for _ in linear.children())


def gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    scale = b.abs().amax()
    return float((a - b).abs().amax() / scale) if scale > 0 else float("inf")


def close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of the coarser dtype."""
    return a.shape == b.shape and gap(a, b) <= max(tolerance(a.dtype), tolerance(b.dtype))


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of the same thing may lie apart. Parts of a float64 model may compute in float32."""
    if dtype in (torch.float32, torch.float64):
        return 64 * torch.finfo(torch.float32).eps
    return 4 * torch.finfo(dtype).eps


@contextmanager
def each_row_alone(model: nn.Module) -> Iterator[None]:
    """While inside, LLM.int8 quantises every row by itself, so that a row's values say what it depends on.

    Otherwise a column that is large in one row of a batch is left in half precision in all of them (Dettmers et al., 2022, section 3.2).
    """
    held: list[Any] = [getattr(module, "state", None) for module in model.modules()]
    states = [state for state in held if hasattr(state, "has_fp16_weights")]
    thresholds = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """While inside, a module's own weights are there, also where accelerate keeps them elsewhere until they are used."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


def down_device(model: nn.Module, site: Site) -> torch.device:
    """Where a site's down projection is."""
    return next(unwrapped(model).get_submodule(site.down).parameters()).device


def down_norms(model: nn.Module, site: Site) -> Tensor:
    """‖column of the down projection‖² of each neuron of a site: float64 (width,), on the CPU."""
    linear: Any = unwrapped(model).get_submodule(site.down)
    if site.layout is not None and site.expert is not None:
        with present(linear):
            return site.layout.down.weight(linear, site.expert).detach().cpu().double().square().sum(0)
    weight: Tensor = linear.weight
    if has_adapter(linear) or not torch.is_floating_point(
        weight
    ):  # 4- and 8-bit layers too: read the matrix by running it
        device = weight.device
        eye = torch.eye(site.width, device=device, dtype=next(body(model).parameters()).dtype)
        columns: Tensor = linear(eye) - linear(torch.zeros_like(eye[:1]))
        return columns.cpu().double().square().sum(1)
    with present(linear):
        weight = linear.weight
        by_column = weight.detach().cpu().double().square()
    return by_column.sum(1 if hasattr(linear, "nx") else 0)


def keeps_sign(model: nn.Module, site: Site) -> bool:
    """Whether the activation is above 0 exactly where its input is. Fires means activation > 0 in any case."""
    parameter = next(unwrapped(model).get_submodule(site.down).parameters())
    line = torch.linspace(-4, 4, 801, device=parameter.device)[:, None].expand(-1, site.width)
    line = line.to(parameter.dtype) if parameter.is_floating_point() else line
    if site.layout is not None:
        a = activation_of(unwrapped(model).get_submodule(site.down), site.layout, line)
    elif site.rule == "activation":
        a = unwrapped(model).get_submodule(site.activation)(line)
    else:
        a = FUNCTIONS[site.activation](line)
    return bool(((a > 0) == (line > 0)).all())
