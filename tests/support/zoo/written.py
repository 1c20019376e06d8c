"""The MLPs of `kinds.py` computed by hand inside a real model: nothing here is found by `lape`.

python tests/support/zoo/written.py TYPE ...      # is the table right? (run from the project's root)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from support.tiny import COMMON
from support.zoo.kinds import Experts, Fire, Function, Kind, Mlp, Own

Change = Callable[[int, int | None, Tensor, Tensor], Tensor]
"""(position of the stretch's MLP among all, expert or None, activation (rows, width), token numbers (rows,)) -> activation."""

Raise = Callable[[int, int | None, Tensor, Tensor, Function], Tensor]
"""(position, expert or None, input (rows, hidden), token numbers (rows,), activation function) -> what is added to what the gate projection gave."""
Wrote = Callable[[int, int | None, Tensor, Tensor], None]
"""The same of what the down projection reads: activation times up. Not called where a type computes an MLP by a function of its own."""


def build(name: str, kind: Kind, dtype: torch.dtype | None = None, seed: int = 0) -> Any:
    """A random model of a type, its weights large enough that activations differ between tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    given = {key: value for key, value in {**COMMON, **kind.config}.items() if value is not ...}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **given), dtype=dtype or kind.dtype).eval()
    if any(isinstance(mlp, Experts) for mlp in kind.mlps):
        model.set_experts_implementation("batched_mm")  # the default refuses float64
    if name == "gpt_oss":
        for mlp in (one for one in model.modules() if hasattr(one, "limit")):
            mlp.limit = given["swiglu_limit"]  # transformers below 5.21 leaves the configuration's aside
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def affine(module: Any) -> tuple[Tensor, Tensor]:
    """(out, in) weight and (out,) bias of a linear layer or Conv1D."""
    weight = module.weight.detach()
    weight = weight.T if type(module).__name__ == "Conv1D" else weight
    bias = getattr(module, "bias", None)
    return weight, torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias.detach()


def width_of(model: Any, mlp: Mlp, block: int) -> int:
    return affine(model.get_submodule(mlp.down.format(block)))[0].shape[1]


def halves(model: Any, mlp: Mlp, block: int, x: Tensor) -> tuple[Tensor, Function, Tensor]:
    """What the gate projection of a dense MLP gives for its input, its activation function, and what the activation is multiplied by."""
    width = width_of(model, mlp, block)
    weight, bias = affine(model.get_submodule(mlp.gate.format(block)))
    z = x @ weight.T + bias
    if mlp.up is None:
        return z, mlp.function, torch.ones_like(z)
    if mlp.up == mlp.gate:
        gate, up = z[..., :width], z[..., width:]
    else:
        weight, bias = affine(model.get_submodule(mlp.up.format(block)))
        gate, up = z, x @ weight.T + bias
    return gate, *_of_glu(mlp, gate, up)


def _of_glu(mlp: Mlp | Experts, gate: Tensor, up: Tensor) -> tuple[Function, Tensor]:
    """The activation function, and what the activation is multiplied by, which does not depend on the gate."""
    glu = mlp.glu
    return (mlp.function, up) if glu is None else (lambda z: glu(z, up)[0], glu(gate, up)[1])


def run_experts(
    module: Any,
    mlp: Experts,
    fire: Fire,
    *args: Any,
    wrote: Callable[[int, Tensor, Tensor], None] = lambda *_: None,
) -> Tensor:
    """Routed experts, one token and one expert after the other."""
    if mlp.by_hand is not None:
        return mlp.by_hand(module, fire, *args)
    hidden, index, weights = args[:3]
    enter, leave = (getattr(module, name).detach() for name in (mlp.gate_up, mlp.down))
    if mlp.transposed:
        enter, leave = enter.transpose(1, 2), leave.transpose(1, 2)
    result = torch.zeros_like(hidden)
    for expert in range(len(leave)):
        rows, slots = (index == expert).nonzero(as_tuple=True)
        if not len(rows):
            continue
        z = hidden[rows] @ enter[expert].T
        if mlp.biases:
            z = z + getattr(module, mlp.biases[0]).detach()[expert]
        if not mlp.gated:
            gate, function, h = z, mlp.function, torch.ones_like(z)
        else:
            half = z.shape[1] // 2
            gate, up = (z[:, ::2], z[:, 1::2]) if mlp.interleaved else (z[:, :half], z[:, half:])
            function, h = _of_glu(mlp, gate, up)
        product = fire(expert, hidden[rows], gate, function, rows) * h
        wrote(expert, product, rows)
        out = product @ leave[expert].T
        if mlp.biases:
            out = out + getattr(module, mlp.biases[1]).detach()[expert]
        result.index_add_(0, rows, (out * weights[rows, slots][:, None]).to(result.dtype))
    return result


def places(kind: Kind) -> list[tuple[int, Mlp | Own | Experts]]:
    """(block, MLP) of every MLP in the model: block after block, in the order of the table."""
    return [
        (block, mlp) for block in range(kind.blocks) for mlp in kind.mlps if mlp.layers is None or block in mlp.layers
    ]


@contextmanager
def rewritten(
    model: Any,
    kind: Kind,
    change: Change,
    ran: list[int] | None = None,
    wrote: Wrote = lambda *_: None,
    raised: Raise | None = None,
) -> Iterator[None]:
    """While inside, every MLP computes down(change(function(gate + raised)) · up) by the formulas of the table; the positions of those that
    have run are added to `ran`.
    """
    undo: list[Callable[[], None]] = []
    ran = [] if ran is None else ran

    def fire(position: int, expert: int | None, x: Tensor, gate: Tensor, function: Function, rows: Tensor) -> Tensor:
        if raised is not None:
            gate = gate + raised(position, expert, x, rows, function)
        return change(position, expert, function(gate), rows)

    for position, (block, mlp) in enumerate(places(kind)):
        if isinstance(mlp, Mlp):
            undo += [
                handle.remove for handle in _dense(model, position, block, mlp, partial(fire, position), ran, wrote)
            ]
        else:
            undo.append(
                _replaced(
                    model.get_submodule(mlp.module.format(block)), position, mlp, partial(fire, position), ran, wrote
                )
            )
    try:
        yield
    finally:
        for step in undo:
            step()


def _dense(model: Any, position: int, block: int, mlp: Mlp, fire: Fire, ran: list[int], wrote: Wrote) -> list[Any]:
    inputs: list[Tensor] = []
    down = model.get_submodule(mlp.down.format(block))

    def keep(_module: Any, args: tuple[Tensor, ...]) -> None:
        inputs[:] = [args[0]]

    def replace(_module: Any, _args: Any, out: Tensor) -> Tensor:
        gate, function, h = halves(model, mlp, block, inputs[0].flatten(0, -2))
        rows = torch.arange(len(gate))
        product = fire(None, inputs[0].flatten(0, -2), gate, function, rows) * h
        weight, bias = affine(down)
        wrote(position, None, product, rows)
        ran.append(position)
        return (product @ weight.T + bias).view(out.shape).to(out.dtype)

    gate = model.get_submodule(mlp.gate.format(block))
    return [gate.register_forward_pre_hook(keep), down.register_forward_hook(replace)]


def _replaced(
    module: Any, position: int, mlp: Own | Experts, fire: Fire, ran: list[int], wrote: Wrote
) -> Callable[[], None]:
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        run = mlp.by_hand if isinstance(mlp, Own) else partial(run_experts, wrote=partial(wrote, position))
        first = (module,) if isinstance(mlp, Own) else (module, mlp)
        out: Tensor = run(*first, fire, *args, *kwargs.values())
        ran.append(position)
        return out

    module.forward = forward
    return lambda: delattr(module, "forward")


def logits_of(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=ids, use_cache=False).logits
    return result


def verify(name: str, kind: Kind) -> str:
    """What is wrong with an entry of the table, or "" where it is right."""
    model = build(name, kind)
    ids = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    plain_logits = logits_of(model, ids)
    calls: dict[int, int] = {}

    def same(position: int, _expert: int | None, a: Tensor, _rows: Tensor) -> Tensor:
        calls[position] = calls.get(position, 0) + 1
        return a

    with rewritten(model, kind, same):
        by_hand = logits_of(model, ids)
    gap = float((by_hand - plain_logits).abs().max() / plain_logits.abs().max())
    if set(calls) != set(range(len(places(kind)))):
        return f"these MLPs never ran: {[k for k in range(len(places(kind))) if k not in calls]}"
    if not gap < (1e-5 if kind.dtype == torch.float64 else 1e-3):
        return f"logits computed by hand differ by {gap:.1e}"
    for position in range(len(places(kind))):
        with rewritten(model, kind, lambda k, _e, a, _r, p=position: a * 0.5 if k == p else a):  # type: ignore[misc]
            if torch.equal(logits_of(model, ids), by_hand):
                return f"MLP {position} changes nothing"
    return ""


def main(names: Sequence[str]) -> None:
    from support.zoo.table import KINDS

    for name in names:
        kind = KINDS[name]
        try:
            said = kind.not_applicable or verify(name, kind) or f"right: {len(places(kind))} MLPs"
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:300]}"
        sys.stdout.write(f"{name}: {said}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
