"""Hooks: when and for whom they act, and how compiled code notices them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache, partial
from inspect import signature
from threading import RLock
from typing import Any, ClassVar, NoReturn, Protocol
from weakref import ref

import torch
from torch import nn

from lape.errors import ModelError, certain
from lape.model.weak_cache import WeakCache

_ENTERED: ContextVar[frozenset[Scope]] = ContextVar("lape_entered", default=frozenset())
_PAUSED: ContextVar[bool] = ContextVar("lape_paused", default=False)


class Scope:
    """When and for whom hooks act: from entry to exit in every thread and task or, isolated, only in contexts in which it was entered.

    Contexts are those of `contextvars`: tasks inherit them, a thread is given one by `contextvars.copy_context().run`.
    """

    def __init__(self, *, isolated: bool = False) -> None:
        self._isolated, self._open = isolated, False

    def __enter__(self) -> Scope:
        self._open = True
        if self._isolated:
            _ENTERED.set(frozenset(scope for scope in _ENTERED.get() if scope._open) | {self})
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        _ENTERED.set(_ENTERED.get() - {self})  # in place of `reset`: a generator may be closed in another context

    @property
    def acts(self) -> bool:
        """Whether hooks act for the caller."""
        return self._open and not _PAUSED.get() and (not self._isolated or self in _ENTERED.get())


@contextmanager
def unhooked() -> Iterator[None]:
    """Context manager in which no hook of ours acts for the caller, so that a model runs unedited."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


class Handle(Protocol):
    """Something that can be put into a model and taken out again."""

    def begin(self, scope: Scope) -> None:
        """Put it in, to act within a scope."""

    def remove(self) -> None:
        """Take it out."""


class Uncopied:
    """A hook that does nothing, but that a module which carries it is neither copied nor pickled."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        """None, which leaves what passes."""

    def __deepcopy__(self, _memo: object) -> NoReturn:
        _refuse_copy()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        _refuse_copy()


def _refuse_copy() -> NoReturn:
    raise ModelError(
        "A model is neither copied nor pickled while it is edited or watched: the copy would stay so. Copy it outside of `with edited(...)` or "
        "`steer(...)`, or write a checkpoint with the edit in it: lape.export(...)."
    )


class Put(Uncopied):
    """A hook. Once it has begun, it acts within its scope."""

    def __init__(self, register: Callable[..., Any], hook: Callable[..., Any], **how: Any) -> None:
        """`register`: a module's `register_forward_hook` or the like, with its keywords, called when the hook begins."""
        self._register, self._hook, self._how = register, hook, how
        self.owner: object = getattr(register, "__self__", None)
        """Whose `register` it is: a module, or an expert's runner."""
        self._handle: Any = None
        self._scope: Scope | None = None
        self._act_outside = _act_outside()

    def begin(self, scope: Scope) -> None:
        """Register it."""
        self._scope = scope
        self._handle = self._register(self, **self._how)

    def remove(self) -> None:
        """Take it out."""
        if self._handle is not None:
            self._handle.remove()

    @property
    def acts(self) -> bool:
        """Whether it acts for the caller."""
        return self._scope is not None and self._scope.acts

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the hook returns, or None, which leaves what passes."""
        return self._act_outside(self, args, kwargs)


def _act(put: Put, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return put._hook(*args, **kwargs) if put.acts else None


@cache
def _act_outside() -> Callable[..., Any]:
    return outside_graphs(_act)


def outside_graphs(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, such that compiled code leaves its graph where it calls it, and neither it nor what it calls is compiled."""
    disable: Any = torch.compiler.disable
    reason = "lape edits and watches a model outside of compiled graphs. Compile without fullgraph=True."
    if "reason" in signature(disable).parameters:  # since torch 2.8
        disable = partial(disable, reason=reason)
    outside: Callable[..., Any] = disable(call)
    return outside


class StandIn:
    """A `forward` of a module's own, which runs outside of compiled graphs, while something is hooked into the module or below it.

    torch's compiled code does not notice hooks that come and go, but does check whether a module has been given a `forward`. So a graph from before is
    not used meanwhile, and is again afterwards.
    """

    _all: ClassVar[WeakCache[nn.Module, StandIn]] = WeakCache()
    _lock: ClassVar[RLock] = RLock()

    def __init__(self, module: nn.Module) -> None:
        self._module = ref(module)
        self._users = 0
        self._before: Any = None
        """A `forward` that the module was given by others."""
        self._own: Any = None
        self._placed: Any = None

    @classmethod
    def of(cls, module: nn.Module) -> StandIn:
        """The one of a module."""
        return cls._all.get_or_make(module, lambda: cls(module))

    @classmethod
    def given(cls, module: nn.Module) -> Any:
        """The `forward` that others gave a module in place of its class's, if any."""
        own = cls._all.get(module)
        now = module.__dict__.get("forward")
        return own._before if own is not None and own._placed is not None and now is own._placed else now

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """What the module itself computes."""
        own = self._own
        return (self._held().forward if own is None else own)(*args, **kwargs)

    def _held(self) -> nn.Module:
        return certain(self._module())

    def begin(self, instead: Callable[..., Any] | None = None) -> None:
        """Put it in place for one more user. `instead`: what is computed from now on, in place of what the module itself does."""
        module = self._held()
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = module.__dict__.get("forward")
                self._own = self._placed = module.__dict__["forward"] = outside_graphs(module.forward)
            if instead is not None:
                self._place(module, outside_graphs(instead))

    def end(self, *, instead: bool = False) -> None:
        """The opposite, with `instead` for a user that gave one."""
        module = self._held()
        with self._lock:
            self._users -= 1
            if instead:
                self._place(module, self._own)
            if not self._users:
                self._place(module, self._before)
                self._before = self._own = self._placed = None

    def _place(self, module: nn.Module, forward: Any) -> None:
        """Replace what stands there, unless others have replaced it meanwhile."""
        if module.__dict__.get("forward") is self._placed:
            self._placed = module.__dict__["forward"] = forward
            if forward is None:
                del module.__dict__["forward"]


@contextmanager
def standing_in(model: nn.Module, owners: Collection[object]) -> Iterator[None]:
    """Context manager in which some modules of a model and all that hold them run outside of compiled graphs."""
    holding: dict[nn.Module, bool] = {}

    def holds(module: nn.Module) -> bool:
        if module not in holding:
            holding[module] = False
            inside = [holds(child) for child in module.children()]
            holding[module] = module in owners or any(inside)
        return holding[module]

    holds(model)
    with ExitStack() as stack:
        for module in (module for module, inside in holding.items() if inside):
            stand_in = StandIn.of(module)
            stand_in.begin()
            stack.callback(stand_in.end)
        yield
