"""Where hooks act: in the thread or task that put them and in those started from there, whoever else runs the model meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any, Protocol

import torch

_HERE: ContextVar[frozenset[Scope]] = ContextVar("lape_scopes", default=frozenset())
_POOLS = {"concurrent.futures.thread", "multiprocessing.pool"}
"""Their workers serve whoever asks, not the thread that happened to start them."""


class Scope:
    """The inside of a `with`, as seen by the thread or task that entered it and by those started from there."""

    def __init__(self) -> None:
        self._open = False
        self._entered: tuple[int, object] | None = None

    def __enter__(self) -> Scope:
        _follow_threads()
        self._open, self._entered = True, _runner()
        _HERE.set(frozenset(scope for scope in _HERE.get() if scope._open) | {self})
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        _HERE.set(_HERE.get() - {self})

    @property
    def here(self) -> bool:
        """Whether whoever asks is inside."""
        return self._open and self in _HERE.get()

    @property
    def outlived(self) -> bool:
        """Whether whoever asks was started inside, and goes on after it was left."""
        return not self._open and self in _HERE.get() and self._entered != _runner()


def inside() -> frozenset[Scope]:
    """All that whoever asks is, or was started, inside of."""
    return _HERE.get()


def _runner() -> tuple[int, object]:
    """The running thread, and its task where it has one."""
    try:
        return threading.get_ident(), asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return threading.get_ident(), None


@cache
def _follow_threads() -> None:
    """From now on a thread is inside of what the one that starts it is inside of, as tasks are.

    Before Python 3.14 a new thread knows nothing of who started it, so one that streams what an edited model writes could not
    be told from another user's.
    """
    start = threading.Thread.start

    @wraps(start)
    def inherit(thread: threading.Thread) -> None:
        here, run = _HERE.get(), thread.run
        target: Any = getattr(thread, "_target", None)

        def inside() -> None:
            nonlocal here
            del thread.__dict__["run"]
            _HERE.set(here)
            here = frozenset()  # or a traceback would keep them
            run()

        if here and getattr(target, "__module__", None) not in _POOLS:
            thread.__dict__["run"] = inside
        start(thread)

    threading.Thread.start = inherit  # type: ignore[method-assign, assignment]


class Handle(Protocol):
    """Something that can be undone."""

    def remove(self) -> None:
        """Undo it."""


def eagerly(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiled code calls as it is, since what it asks for changes between two runs."""
    disable: Any = torch.compiler.disable
    return disable(call) if "torch._dynamo" in sys.modules else call


class Put:
    """A hook that acts where it is `held`: in that thread or task and those started from it. Until then it does nothing."""

    def __init__(self, register: Callable[..., Handle], hook: Callable[..., Any], **how: Any) -> None:
        """`register`: a module's `register_forward_hook` or the like, with its keywords."""
        self._hook, self._scope, self._in_graph = hook, Scope(), False
        self._apart = _apart("torch._dynamo" in sys.modules)
        self._handle = register(self, **how)

    def begin(self, scope: Scope, *, in_graph: bool) -> None:
        """Act inside a scope, and in a graph that is being made where it was made for one."""
        self._scope, self._in_graph = scope, in_graph

    def remove(self) -> None:
        """Undo it."""
        self._handle.remove()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the hook gives, or None, which leaves what passes."""
        if torch.compiler.is_compiling():
            return self._hook(*args, **kwargs) if self._in_graph else self._apart(self, args, kwargs)
        return self._act(args, kwargs)

    def _act(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._hook(*args, **kwargs) if self._scope.here else None


@cache
def _apart(_compiling: bool) -> Callable[..., Any]:
    """Made once, and again when torch's compiler is loaded."""
    return eagerly(Put._act)
