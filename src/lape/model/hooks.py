"""Seeing and changing what passes a site while a model runs, whatever its kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Protocol, TypeAlias
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from lape.model.body import body, unwrapped
from lape.model.experts import Point, Runner
from lape.model.numerics import limited
from lape.model.site import FUNCTIONS, Branch, Site

Rows: TypeAlias = "Tensor | None"
"""Flat token number of each row (rows,) int64 where an expert sees some tokens only; None where all tokens come in order."""
See: TypeAlias = Callable[[int, Tensor, Rows], "Tensor | None"]
"""Called with a site's position, its activations (..., width), and which tokens they are of."""
Callback: TypeAlias = Callable[[Tensor, Rows], "Tensor | None"]
"""The same of one site; what is returned takes the place of what is given, and None leaves it."""
Alter: TypeAlias = Callable[[Tensor, Rows], Tensor]
"""Activations (..., width), and which tokens they are of -> what takes their place; shape and dtype kept, not in place."""


class Handle(Protocol):
    """Something that can be undone."""

    def remove(self) -> None:
        """Undo it."""


At: TypeAlias = Callable[[nn.Module, Site, Callback], list[Handle]]
"""Calls back at every forward with what passes a point of a site: `change`, `at_product` or `at_output`."""


def forget_compiled() -> None:
    """Drop what torch has compiled: compiled code does not notice hooks that come and go."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@contextmanager
def held(handles: Sequence[Handle]) -> Iterator[None]:
    """While inside, hooks that were just registered act; a graph that was made before goes on as it is."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooked(handles: Sequence[Handle]) -> Iterator[None]:
    """While inside, hooks that were just registered act, on compiled models too; afterwards they are gone."""
    forget_compiled()
    try:
        with held(handles):
            yield
    finally:
        forget_compiled()


def _part(out: Tensor, branch: Branch, width: int) -> Tensor:
    return out[..., branch.offset : branch.offset + width]


def change(model: nn.Module, site: Site, alter: Callback) -> list[Handle]:
    """Put `alter(activation, which tokens) -> activation` into every forward; None leaves it. Undo by the handles."""
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "activation", alter)
    if site.rule == "activation":
        turn = _Turn(model, site.activation_turn, site.activation_runs)
        put = turn.only(lambda _m, _i, out: alter(out, None))
        return [*turn.handles, model.get_submodule(site.activation).register_forward_hook(put)]
    if site.rule == "down input":
        return at_product(model, site, alter)
    turn = _Turn(model, site.turn, site.runs)
    gate, down = _FunctionalGate.of(model, site), model.get_submodule(site.reader)
    put = turn.only(lambda _m, args: gate.rewrite(args, lambda a: alter(a, None)))
    return [*gate.attach(), *turn.handles, down.register_forward_pre_hook(put)]


def at_product(model: nn.Module, site: Site, callback: Callback) -> list[Handle]:
    """Call back with every activation times up, (..., width), on its way to the down projection; what is returned takes its place."""
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "product", callback)

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = callback(args[0], None)
        return None if changed is None else (changed, *args[1:])

    turn = _Turn(model, site.turn, site.runs)
    return [*turn.handles, model.get_submodule(site.reader).register_forward_pre_hook(turn.only(hook))]


def at_output(model: nn.Module, site: Site, callback: Callback) -> list[Handle]:
    """Call back with every output of the down projection (of an expert's, before it is weighed); what is returned takes its place."""
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "output", callback)
    turn = _Turn(model, site.turn, site.runs)
    hook = turn.only(lambda _m, _args, out: callback(out, None))
    return [*turn.handles, model.get_submodule(site.down).register_forward_hook(hook)]


@contextmanager
def watching(model: nn.Module, sites: Sequence[Site], see: See, at: At = change) -> Iterator[None]:
    """While inside, `see(position in sites, activation (..., width), which tokens)` is called at every site of every forward.

    `at`: another point than the activation, `at_product` or `at_output`. What `see` returns takes the place of what passes there.
    """
    with hooked([handle for k, site in enumerate(sites) for handle in at(model, site, partial(see, k))]):
        yield


def _at_expert(model: nn.Module, site: Site, point: Point, callback: Callback) -> list[Handle]:
    assert site.layout is not None  # the callers looked
    assert site.expert is not None
    turn = _Turn(model, site.turn, site.runs)
    runner = Runner.of(model.get_submodule(site.down), site.layout)
    return [*turn.handles, runner.attach(point, site.expert, turn.only(callback))]


class _Turn:
    """Lets a hook act in one of the several runs of a shared module in a forward."""

    def __init__(self, model: nn.Module, turn: int, runs: int) -> None:
        self._turn, self._runs, self._ran = turn, runs, 0
        self.handles: list[Handle] = []
        if runs > 1:
            for module in dict.fromkeys((model, body(model))):
                self.handles.append(module.register_forward_pre_hook(self._begin))

    def only(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """The hook itself where there is one run."""
        if self._runs == 1:
            return hook

        def counted(*args: Any) -> Any:
            mine = self._ran % self._runs == self._turn
            self._ran += 1
            return hook(*args) if mine else None

        return counted

    def _begin(self, *_: Any) -> None:
        self._ran = 0


class _FunctionalGate:
    """A gated MLP without an activation module: gate and up are remembered until the down projection has run, and where an
    activation changes, `value · up` is written into the down projection's input. All hooks of a site share one, so that
    each sees what those before it left.
    """

    _all: ClassVar[WeakKeyDictionary[nn.Module, _FunctionalGate]] = WeakKeyDictionary()

    def __init__(self, model: nn.Module, site: Site, gate: Branch, up: Branch) -> None:
        self._width, self._function, self._gate, self._up = site.width, FUNCTIONS[site.activation], gate, up
        self._limit, self._plus = site.limit, site.plus
        names = dict.fromkeys((gate.module, up.module))
        self._modules = {name: ref(model.get_submodule(name)) for name in names}
        self._down = ref(model.get_submodule(site.reader))
        self._out: dict[str, Tensor] = {}
        self._now: Tensor | None = None

    @classmethod
    def of(cls, model: nn.Module, site: Site) -> _FunctionalGate:
        down = model.get_submodule(site.reader)
        if down not in cls._all:
            assert site.gate is not None  # the rule says so
            assert site.up is not None
            cls._all[down] = cls(model, site, site.gate, site.up)
        return cls._all[down]

    def attach(self) -> list[Handle]:
        handles: list[Handle] = [
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
            gate = _part(self._out[self._gate.module], self._gate, self._width)
            self._now = self._function(limited(gate, self._limit, above_only=True))
        return self._now

    def rewrite(self, args: tuple[Any, ...], alter: Callable[[Tensor], Tensor | None]) -> tuple[Any, ...] | None:
        before = self.activation()
        after = alter(before)
        if after is None:
            return None
        self._now = after
        up = limited(_part(self._out[self._up.module], self._up, self._width), self._limit)
        up = up + self._plus if self._plus else up
        return (torch.where(after == before, args[0], after * up), *args[1:])
