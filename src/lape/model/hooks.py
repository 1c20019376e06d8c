"""Seeing and changing what passes a site while a model runs, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident
from typing import Any, ClassVar, TypeAlias
from weakref import ref

import torch
from torch import Tensor, nn

from lape.errors import certain
from lape.model.body import body, unwrapped
from lape.model.experts import Point, Runner
from lape.model.numerics import limited
from lape.model.scope import Handle, Put, Scope, standing_in
from lape.model.site import FUNCTIONS, Branch, Site
from lape.model.weak_cache import WeakCache
from lape.model.weights import check_gate

Rows: TypeAlias = "Tensor | None"
"""Flat token number of each row (rows,) int64 where an expert sees some tokens only; None where all tokens come in order."""
See: TypeAlias = Callable[[int, Tensor, Rows], "Tensor | None"]
"""Called with a site's position, its activations (..., width), and which tokens they are of."""
Callback: TypeAlias = Callable[[Tensor, Rows], "Tensor | None"]
"""The same of one site; what is returned takes the place of what is given, and None leaves it."""
Alter: TypeAlias = Callable[[Tensor, Rows], Tensor]
"""Activations (..., width), and which tokens they are of -> what takes their place; shape and dtype kept, not in place."""


At: TypeAlias = Callable[[nn.Module, Site, Callback], list[Handle]]
"""Calls back at every forward with what passes a point of a site: `change`, `at_gate`, `at_product` or `at_output`."""


@contextmanager
def hooked(model: nn.Module, handles: Sequence[Handle], *, isolated: bool = False) -> Iterator[None]:
    """Context manager in which hooks in a model act, whether or not it is compiled: what holds them runs uncompiled meanwhile.

    They act in every thread and task or, `isolated`, only in contexts (`contextvars`) in which they were entered.
    """
    owners = {handle.owner for handle in handles if isinstance(handle, Put)}
    modules = {owner.module if isinstance(owner, Runner) else owner for owner in owners}
    scope = Scope(isolated=isolated)
    with standing_in(model, modules):
        try:
            for handle in handles:
                handle.begin(scope)
            with scope:
                yield
        finally:
            for handle in handles:
                handle.remove()


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
        return [*turn.handles, Put(model.get_submodule(site.activation).register_forward_hook, put)]
    if site.rule == "down input":
        return at_product(model, site, alter)
    turn = _Turn(model, site.turn, site.runs)
    gate, down = _FunctionalGate.of(model, site), model.get_submodule(site.reader)
    put = turn.only(lambda _m, args: gate.rewrite(args, lambda a: alter(a, None)))
    return [*gate.attach(), *turn.handles, Put(down.register_forward_pre_hook, put)]


def at_gate(model: nn.Module, site: Site, callback: Callback) -> list[Handle]:
    """Call back with what the gate projection gives, (..., width), on its way to the activation function; what is returned takes its place.

    Raises ModelError where that is not known.
    """
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "gate", callback)
    gate = check_gate(site)
    linear = model.get_submodule(gate.module)

    def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor | None:
        part = _part(out, gate, site.width)
        changed = callback(part, None)
        if changed is None or part.shape == out.shape:
            return changed
        return torch.cat([out[..., : gate.offset], changed, out[..., gate.offset + site.width :]], -1)

    # before those that remember what a gate gave, whoever came first
    turn = _Turn(model, site.turn, site.runs)
    return [*turn.handles, Put(linear.register_forward_hook, turn.only(hook), prepend=True)]


def at_product(model: nn.Module, site: Site, callback: Callback) -> list[Handle]:
    """Call back with every activation times up, (..., width), on its way to the down projection; what is returned takes its place."""
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "product", callback)

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = callback(args[0], None)
        return None if changed is None else (changed, *args[1:])

    turn = _Turn(model, site.turn, site.runs)
    return [*turn.handles, Put(model.get_submodule(site.reader).register_forward_pre_hook, turn.only(hook))]


def at_output(model: nn.Module, site: Site, callback: Callback) -> list[Handle]:
    """Call back with every output of the down projection (of an expert's, before it is weighed); what is returned takes its place."""
    model = unwrapped(model)
    if site.layout is not None:
        return _at_expert(model, site, "output", callback)
    turn = _Turn(model, site.turn, site.runs)
    hook = turn.only(lambda _m, _args, out: callback(out, None))
    return [*turn.handles, Put(model.get_submodule(site.down).register_forward_hook, hook)]


@contextmanager
def watching(
    model: nn.Module, sites: Sequence[Site], see: See, at: At = change, *, isolated: bool = False
) -> Iterator[None]:
    """While inside, `see(position in sites, activation (..., width), which tokens)` is called at every site of every forward.

    `at`: another point than the activation, `at_product` or `at_output`. What `see` returns takes the place of what passes there. `isolated`: as
    `hooked` has it.
    """
    handles = [handle for k, site in enumerate(sites) for handle in at(model, site, partial(see, k))]
    with hooked(model, handles, isolated=isolated):
        yield


def _at_expert(model: nn.Module, site: Site, point: Point, callback: Callback) -> list[Handle]:
    turn = _Turn(model, site.turn, site.runs)
    runner = Runner.of(model.get_submodule(site.down), certain(site.layout))
    return [*turn.handles, Put(runner.attach, turn.only(callback), point=point, expert=certain(site.expert))]


def _thread() -> int:
    """Whose forward it is: several threads may run a model at once. A graph is run by one."""
    return 0 if torch.compiler.is_compiling() else get_ident()


class _Turn:
    """Lets a hook act in one of the several runs of a shared module in a forward; in none of a forward that began before the hook did."""

    def __init__(self, model: nn.Module, turn: int, runs: int) -> None:
        self._turn, self._runs = turn, runs
        self._ran: dict[int, int] = {}
        """How often it ran in the forward of each thread."""
        self.handles: list[Handle] = []
        if runs > 1:
            for module in dict.fromkeys((model, body(model))):
                self.handles.append(Put(module.register_forward_pre_hook, self._begin))

    def only(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """The hook itself where there is one run."""
        if self._runs == 1:
            return hook

        def counted(*args: Any) -> Any:
            ran = self._ran.get(_thread())
            if ran is None:
                return None
            self._ran[_thread()] = ran + 1
            mine = ran % self._runs == self._turn
            return hook(*args) if mine else None

        return counted

    def _begin(self, *_: Any) -> None:
        self._ran[_thread()] = 0


class _FunctionalGate:
    """A gated MLP without an activation module: gate and up are remembered until the down projection has run, and where an
    activation changes, `value · up` is written into the down projection's input. All hooks of a site share one, so that
    each sees what those before it left.
    """

    _all: ClassVar[WeakCache[nn.Module, _FunctionalGate]] = WeakCache()

    def __init__(self, model: nn.Module, site: Site, gate: Branch, up: Branch) -> None:
        self._width, self._function, self._gate, self._up = site.width, FUNCTIONS[site.activation], gate, up
        self._limit, self._plus = site.limit, site.plus
        names = dict.fromkeys((gate.module, up.module))
        self._modules = {name: ref(model.get_submodule(name)) for name in names}
        self._down = ref(model.get_submodule(site.reader))
        self._out: dict[tuple[int, str], Tensor] = {}
        self._now: dict[int, Tensor] = {}
        """Both of each thread that runs a forward."""
        self._users, self._lock = 0, Lock()

    @classmethod
    def of(cls, model: nn.Module, site: Site) -> _FunctionalGate:
        make = partial(cls, model, site, certain(site.gate), certain(site.up))
        return cls._all.get_or_make(model.get_submodule(site.reader), make)

    def attach(self) -> list[Handle]:
        handles: list[Handle] = [
            Put(module.register_forward_hook, partial(self._remember, name))
            for name, r in self._modules.items()
            if (module := r())
        ]
        down = self._down()
        return [self, *handles, Put(down.register_forward_hook, self._forget)] if down is not None else handles

    def begin(self, _scope: Scope) -> None:
        """One more edit or watcher needs it."""
        with self._lock:
            self._users += 1

    def remove(self) -> None:
        """One less: the last one leaves nothing of a forward that still runs in another thread."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._out.clear()
                self._now.clear()

    def _remember(self, name: str, _module: nn.Module, _args: Any, out: Tensor) -> None:
        self._out[_thread(), name] = out
        self._now.pop(_thread(), None)

    def _forget(self, *_: Any) -> None:
        for name in self._modules:
            self._out.pop((_thread(), name), None)
        self._now.pop(_thread(), None)

    def rewrite(self, args: tuple[Any, ...], alter: Callable[[Tensor], Tensor | None]) -> tuple[Any, ...] | None:
        thread = _thread()
        gate, up = (self._out.get((thread, branch.module)) for branch in (self._gate, self._up))
        if gate is None or up is None:  # this forward began before the hooks did
            return None
        before = self._now.get(thread)
        if before is None:
            before = self._function(limited(_part(gate, self._gate, self._width), self._limit, above_only=True))
        after = alter(before)
        self._now[thread] = before if after is None else after
        if after is None:
            return None
        factor = limited(_part(up, self._up, self._width), self._limit)
        factor = factor + self._plus if self._plus else factor
        return (torch.where(after == before, args[0], after * factor), *args[1:])
