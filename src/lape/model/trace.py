"""What runs in a model's decoder blocks: every call of their modules in a tiny forward, with what went in and came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lape.errors import LapeError, ModelError, passed_over
from lape.model.body import body, hidden_states, text_config, tiny_ids, unwrapped
from lape.model.hooks import hooked
from lape.model.numerics import close
from lape.model.scope import Put
from lape.model.weights import is_linear


@dataclass
class Event:
    """One call of a linear layer or of a module without children."""

    name: str
    module: nn.Module
    given: Tensor
    out: Tensor
    when: int
    turn: int
    """Which of the module's runs in the forward it is, from 0 on."""

    def elementwise(self) -> bool:
        """Whether the module acts on each number alone, and does something: true of activations, not of norms or dropout."""
        if self.given.shape != self.out.shape or torch.equal(self.given, self.out):
            return False
        with passed_over(RuntimeError, ValueError, TypeError):
            part = self.module(self.given[..., :1])
            out = self.out[..., :1]
            return isinstance(part, Tensor) and part.shape == out.shape and (torch.equal(part, out) or close(part, out))
        return False


@dataclass
class Part:
    """One call of a module that holds others, or stacked parameters."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    when: int
    turn: int
    """Which of the module's runs in the forward it is, from 0 on."""


@dataclass
class Call:
    """One run of a decoder block."""

    block: str
    """The block's name."""
    owner: str
    """The name of the list it is in."""
    widths: tuple[int, ...] = ()
    """Of hidden states, and of its output: the same but where a block passes on several streams."""
    events: list[Event] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


def traced(model: nn.Module) -> Trace:
    """The runs of the decoder blocks (the members of the outermost module lists of the body) in a tiny forward."""
    name_of: dict[nn.Module, str] = {}
    for name, module in unwrapped(model).named_modules():
        name_of.setdefault(module, name)
    trace = Trace(getattr(text_config(model), "hidden_size", 0))
    handles: list[Any] = []
    seen: set[nn.Module] = set()
    for owner, blocks in _outermost_lists(body(model)):
        for block in blocks:
            if block in seen:
                continue
            seen.add(block)
            handles.append(Put(block.register_forward_pre_hook, partial(trace.enter, name_of[block], name_of[owner])))
            for module in _units(block):
                if module not in seen:
                    seen.add(module)
                    handles += trace.watch(name_of[module], module)
            handles.append(Put(block.register_forward_hook, trace.leave))
    try:
        with hooked(model, handles, isolated=True):
            hidden_states(model, tiny_ids(model))
    except LapeError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        said = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ModelError(
            f"{type(unwrapped(model)).__name__} does not run on token ids alone: {said[0][:300]} Expected a decoder-only language model. For "
            "experts that refuse their shapes or number format, load with another implementation: model.set_experts_implementation('eager')."
        ) from error
    return trace


class Trace:
    """Writes down what runs in which block."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.calls: list[Call] = []
        """The runs of the blocks, in order."""
        self.runs: dict[str, int] = {}
        """How often each module ran."""
        self._inside: list[Call] = []
        self._clock = 0

    def watch(self, name: str, module: nn.Module) -> list[Any]:
        """Write down the calls of a module."""
        handles = []
        leaf = is_linear(module) or not any(True for _ in module.children())
        if leaf:
            handles.append(Put(module.register_forward_hook, partial(self._event, name), with_kwargs=True))
        if not is_linear(module):
            handles.append(Put(module.register_forward_hook, partial(self._part, name), with_kwargs=True))
        return handles

    def enter(self, block: str, owner: str, _module: nn.Module, _args: Any) -> None:
        """A block begins."""
        self._inside.append(Call(block, owner))

    def leave(self, _module: nn.Module, _args: Any, out: Any) -> None:
        """A block ends."""
        call = self._inside.pop()
        hidden = first(out)
        call.widths = (self._width, *(() if hidden is None else (hidden.shape[-1],)))
        if call.events or call.parts:
            self.calls.append(call)

    def _event(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = first((*args, *kwargs.values()))
        if self._inside and given is not None and isinstance(out, Tensor) and given.is_floating_point():
            self._clock += 1
            turn = self._turn(name)
            event = Event(name, module, given.detach().clone(), out.detach().clone(), self._clock, turn)
            self._inside[-1].events.append(event)

    def _part(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if self._inside:
            self._clock += 1
            self._inside[-1].parts.append(Part(name, module, args, kwargs, out, self._clock, self._turn(called(name))))

    def _turn(self, name: str) -> int:
        self.runs[name] = self.runs.get(name, 0) + 1
        return self.runs[name] - 1


def called(name: str) -> str:
    """By which the runs of a module are counted as a whole, apart from those as a leaf."""
    return f"{name}()"


def first(values: Any) -> Tensor | None:
    """The tensor itself, or the first among several values."""
    if isinstance(values, Tensor):
        return values
    several = values.values() if isinstance(values, dict) else values if isinstance(values, (tuple, list)) else ()
    return next((value for value in several if isinstance(value, Tensor)), None)


def _outermost_lists(model: nn.Module) -> Iterator[tuple[nn.ModuleList, nn.ModuleList]]:
    """The module lists that are in no other, each with its members."""
    if isinstance(model, nn.ModuleList):
        yield model, model
        return
    for child in model.children():
        yield from _outermost_lists(child)


def _units(block: nn.Module) -> Iterator[nn.Module]:
    """What is inside a block; a linear layer with parts of its own (an adapter's) is one thing."""
    for child in block.children():
        yield child
        if not is_linear(child):
            yield from _units(child)
