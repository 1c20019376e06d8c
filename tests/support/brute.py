"""The tiny models' MLPs written out by hand, module by module: nothing here is found by `lape`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from support.tiny import CONFIGS, LAYERS, tiny, tiny_tokenizer
from support.zoo.kinds import gelu, gelu_tanh, relu, silu

torch.set_num_threads(1)

KINDS = tuple(CONFIGS)


def gelu_bloom(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class Mlp:
    """The names of one architecture's projections (`{}` is the layer) and its activation function."""

    gate: str
    down: str
    function: Callable[[Tensor], Tensor]
    up: str | None = None
    width: int = 44


_LLAMA = "model.layers.{}.mlp."
_NEOX = "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"
MLPS = {
    **{
        kind: Mlp(_LLAMA + "gate_proj", _LLAMA + "down_proj", function, _LLAMA + "up_proj")
        for kind, function in {
            "llama": silu,
            "mistral": silu,
            "qwen2": silu,
            "qwen3": silu,
            "gemma2": gelu_tanh,
            "gemma3_text": gelu_tanh,
        }.items()
    },
    "phi": Mlp(_LLAMA + "fc1", _LLAMA + "fc2", gelu_tanh),
    "phi3": Mlp(_LLAMA + "gate_up_proj", _LLAMA + "down_proj", silu, _LLAMA + "gate_up_proj"),
    "gpt2": Mlp("transformer.h.{}.mlp.c_fc", "transformer.h.{}.mlp.c_proj", gelu_tanh),
    "gpt_neox": Mlp(f"gpt_neox.layers.{{}}.{_NEOX[0]}", f"gpt_neox.layers.{{}}.{_NEOX[1]}", gelu),
    "opt": Mlp("model.decoder.layers.{}.fc1", "model.decoder.layers.{}.fc2", relu),
    "bloom": Mlp(f"transformer.h.{{}}.{_NEOX[0]}", f"transformer.h.{{}}.{_NEOX[1]}", gelu_bloom, width=128),
    "falcon": Mlp(f"transformer.h.{{}}.{_NEOX[0]}", f"transformer.h.{{}}.{_NEOX[1]}", gelu),
    "mpt": Mlp("transformer.blocks.{}.ffn.up_proj", "transformer.blocks.{}.ffn.down_proj", gelu, width=128),
    "lfm2": Mlp(
        "model.layers.{}.feed_forward.w1",
        "model.layers.{}.feed_forward.w2",
        silu,
        "model.layers.{}.feed_forward.w3",
    ),
}


def lively(kind: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """A tiny model whose biases and norms are not all zeros and ones either."""
    model = tiny(kind, dtype, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@cache
def model_of(kind: str) -> Any:
    """A tiny model in float64, made once; tests leave it as it was."""
    return lively(kind)


def trained(kind: str, texts: Iterable[str], passes: int = 8) -> Any:
    """A tiny model that has learned some lines, so that what it does is worth something to them."""
    model = copy.deepcopy(model_of(kind)).requires_grad_(True)
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    rows = [torch.tensor([tokenizer_of()(text)["input_ids"]]) for text in texts]
    with torch.enable_grad():
        for ids in rows * passes:
            steps.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            steps.step()
    return model.requires_grad_(False)


@cache
def tokenizer_of(bos: bool = True) -> Any:
    return tiny_tokenizer(bos)


def width_of(kind: str) -> int:
    return MLPS[kind].width


def rounding_of(kind: str) -> float:
    """How far two batchings of a float64 model may lie apart: some models' own attention takes its softmax in float32."""
    return 1e-5 if kind in ("gemma2", "bloom", "mpt") else 1e-10


def affine(model: Any, name: str) -> tuple[Tensor, Tensor]:
    """(out, in) weight and (out,) bias of a linear layer or Conv1D."""
    module = model.get_submodule(name)
    weight = module.weight.detach()
    weight = weight.T if type(module).__name__ == "Conv1D" else weight
    bias = getattr(module, "bias", None)
    return weight, torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias.detach()


def down_squares(kind: str) -> Tensor:
    """(neurons,) the squared length of each neuron's column of the down projection."""
    return torch.cat([affine(model_of(kind), MLPS[kind].down.format(k))[0].square().sum(0) for k in range(LAYERS)])


def branches(model: Any, kind: str, layer: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The activation of an MLP for its input, and what it is multiplied by, if anything."""
    mlp = MLPS[kind]
    weight, bias = affine(model, mlp.gate.format(layer))
    a = mlp.function(x @ weight[: mlp.width].T + bias[: mlp.width])
    if mlp.up is None:
        return a, None
    weight, bias = affine(model, mlp.up.format(layer))
    return a, x @ weight[-mlp.width :].T + bias[-mlp.width :]


@contextmanager
def rewritten(model: Any, kind: str, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """While inside, every MLP computes down(change(layer, activation) · up) by the formulas above."""
    handles, inputs = [], {}
    for layer in range(LAYERS):
        gate, down = MLPS[kind].gate.format(layer), MLPS[kind].down.format(layer)
        weight, bias = affine(model, down)

        def keep(_module, args, layer=layer):
            inputs[layer] = args[0]

        def replace(_module, _args, _out, layer=layer, weight=weight, bias=bias):
            a, u = branches(model, kind, layer, inputs[layer])
            a = change(layer, a.clone())
            return (a if u is None else a * u) @ weight.T + bias

        handles.append(model.get_submodule(gate).register_forward_pre_hook(keep))
        handles.append(model.get_submodule(down).register_forward_hook(replace))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activations(model: Any, kind: str, ids: Sequence[int]) -> Tensor:
    """(tokens, neurons) activations of one row, layer after layer."""
    seen: list[Tensor] = [torch.empty(0)] * LAYERS

    def see(layer: int, a: Tensor) -> Tensor:
        seen[layer] = a.flatten(0, -2).clone()
        return a

    with torch.no_grad(), rewritten(model, kind, see):
        model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    return torch.cat(seen, 1)


def products(model: Any, kind: str, ids: Sequence[int]) -> Tensor:
    """(tokens, neurons) activation times up of one row, layer after layer: what the down projections read."""
    seen: list[Tensor] = []

    def look(layer: int, x: Tensor) -> None:
        a, u = branches(model, kind, layer, x)
        seen.append((a if u is None else a * u).flatten(0, -2))

    handles = [
        model.get_submodule(MLPS[kind].gate.format(layer)).register_forward_pre_hook(
            lambda _module, args, layer=layer: look(layer, args[0])
        )
        for layer in range(LAYERS)
    ]
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.cat(seen, 1)


def row_of(text: str, tokenizer: Any, bos: bool) -> tuple[list[int], Tensor]:
    """The ids of one document read alone, and which of them are text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    counted = [token not in (0, 1, 2) for token in ids]
    return ([1, *ids], torch.tensor([False, *counted])) if bos else (ids, torch.tensor(counted))


def sums_of(model: Any, kind: str, texts: Sequence[str], tokenizer: Any, bos: bool = True) -> dict[str, Tensor]:
    """What the definitions say of a list of documents: tokens, fires, sum, square, positive, written, written_square."""
    rows, wrote = [], []
    for text in texts:
        ids, counted = row_of(text, tokenizer, bos)
        rows.append(activations(model, kind, ids)[counted])
        wrote.append(products(model, kind, ids)[counted])
    a, product = torch.cat(rows), torch.cat(wrote)
    return {
        "tokens": torch.tensor(len(a)),
        "fires": (a > 0).sum(0),
        "sum": a.sum(0),
        "square": (a * a).sum(0),
        "positive": torch.where(a > 0, a, 0).sum(0),
        "written": product.sum(0),
        "written_square": (product * product).sum(0),
    }


def logits_of(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def hooks_on(model: Any) -> int:
    """How many forward hooks a model carries."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "and",
    "dog",
    "ate",
    "rat",
    "le",
    "chat",
    "dort",
    "sur",
    "lit",
    "et",
    "chien",
    "mange",
    "été",
    "naïve",
    "猫",
    "坐",
]


def some_texts(count: int, seed: int = 0, words: tuple[int, int] = (1, 9)) -> list[str]:
    """Documents of random words."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    return [" ".join(WORDS[draw(0, len(WORDS))] for _ in range(draw(*words))) for _ in range(count)]


def assert_near(actual: Tensor, expected: Tensor, share: float = 1e-10) -> None:
    """Equal up to `share` of the largest value."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(actual, expected, rtol=share, atol=share * scale)
