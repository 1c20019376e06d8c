"""`lape plan`: what recording and measuring a model would take, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from lape.cli.common import err, out
from lape.cli.flags import FLAGS
from lape.progress import span
from lape.recording.plan import PlanOptions
from lape.recording.plan import plan as made

if TYPE_CHECKING:
    from lape.recording.plan import Plan

_PLAN = PlanOptions()


def plan(
    model: str,
    *,
    revision: str | None = None,
    options: Annotated[PlanOptions, FLAGS] = _PLAN,
) -> None:
    """Say how much memory, arithmetic and time recording and measuring a model would take. No weights are read.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder, a config.json, or sample.
    revision
        Revision of a model on the Hub.
    """
    err.print("making a few layers with random weights …")
    for line in lines(model, made(model, **vars(options), revision=revision)):
        out.print(line, soft_wrap=True)


def lines(name: str, plan: Plan) -> list[str]:
    """The plan in words."""
    probe, several = plan.probe, "s" if plan.devices > 1 else ""
    where = f"{plan.devices} × {probe.device}" if probe else f"{plan.devices} device{several}"
    how = f"computed from the speed given: {flop(plan.speed)}/s each"
    if probe:
        how = (
            f"measured on {probe.layers} layers: recording takes {probe.recording / probe.bare:.2f} × the bare body's time and reaches "
            f"{probe.share(plan.flops / plan.layers):.0%} of the {flop(probe.peak)}/s of a matrix product"
        )
    copies = "a copy fits on one device"
    if plan.a_copy > 1:
        copies = f"a copy needs {plan.a_copy} devices (--device-map auto)"
    return [
        f"{name}: {plan.parameters / 1e9:.2f} B parameters, {plan.layers} layers, {plan.neurons:,} neurons",
        f"weights       {size(plan.weights)} in bfloat16; {copies}",
        f"statistics    {size(plan.statistics)} per language beside the weights, {size(plan.statistics * plan.languages)} on disk for {plan.languages}",
        f"a token       {flop(plan.flops)}, and {flop(plan.head_flops)} for the LM head where losses are measured",
        f"speed         {plan.speed / plan.flops:,.0f} tokens/s per device; {how}",
        f"record        {plan.record_tokens:,} tokens, {flop(plan.record_tokens * plan.flops)}: {span(plan.record_seconds)} on {where}",
        f"perplexity    {plan.passes:,} passes, {plan.evaluate_tokens:,} tokens: {span(plan.evaluate_seconds)} on {where}",
    ]


def size(amount: float) -> str:
    """Bytes as people read them."""
    return _scaled(amount, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def flop(amount: float) -> str:
    """FLOP as people read them."""
    return _scaled(amount, 1000, [f"{prefix}FLOP" for prefix in ("", "K", "M", "G", "T", "P", "E", "Z")])


def _scaled(amount: float, step: int, units: Sequence[str]) -> str:
    """In the first unit in which it is under 1,000, or the last."""
    for unit in units[:-1]:
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= step
    return f"{amount:.3g} {units[-1]}"
