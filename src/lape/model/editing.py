"""While a model is edited: its `generate` says where a prompt ends, and it is not taken for the unedited model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from threading import RLock
from typing import Any, TypeAlias

from torch import nn

from lape.errors import ModelError, warn
from lape.model.body import unwrapped
from lape.model.hooks import hooked
from lape.model.scope import Handle, Scope
from lape.model.weak_cache import WeakCache

Around: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], AbstractContextManager[object]]
"""What a call of `generate` runs within, by its arguments."""


@contextmanager
def editing(
    model: nn.Module, handles: Sequence[Handle], *, generating: Around | None = None, isolated: bool = False
) -> Iterator[None]:
    """Context manager in which hooks that change a model act, as `hooked` has it. On leaving, in whatever order, the model is what it was.

    `generating`: what calls of the model's `generate` run within.
    """
    inner = unwrapped(model)
    edits = _EDITS.get_or_make(inner, _Edits)
    with hooked(model, handles, isolated=isolated), Scope(isolated=isolated) as scope:
        edits.enter(inner, scope, generating)
        try:
            yield
        finally:
            edits.leave(scope)


def refuse_edited(model: nn.Module, what: str) -> None:
    """Refuse what would take an edited model for the model itself. Raises ModelError while an edit acts for the caller."""
    edits = _EDITS.get(unwrapped(model))
    if edits is not None and edits.act:
        raise ModelError(
            f"The model is edited, and {what} would take the edited model for the unedited one. Do that outside of `with edited(...)` or `steer(...)`."
        )


class _Edits:
    """The edits of one model that have been entered."""

    def __init__(self) -> None:
        self._arounds: dict[Scope, Around | None] = {}
        self._own = ExitStack()
        self._lock = RLock()

    @property
    def act(self) -> bool:
        """Whether an edit acts for the caller."""
        return any(scope.acts for scope in tuple(self._arounds))

    def enter(self, model: nn.Module, scope: Scope, generating: Around | None) -> None:
        """One more. The first replaces two methods of this instance: `generate` alone knows where its prompt ends, and whoever
        calls `save_pretrained` should know that no edit is saved.
        """
        with self._lock:
            if not self._arounds:
                for name, method in (("generate", self._generate), ("save_pretrained", self._save)):
                    if hasattr(model, name):
                        inner = getattr(model, name)
                        self._own.enter_context(_replaced(model, name, wraps(inner)(partial(method, inner))))
            self._arounds[scope] = generating

    def leave(self, scope: Scope) -> None:
        """One less. The last gives the methods back."""
        with self._lock:
            del self._arounds[scope]
            if not self._arounds:
                self._own.close()

    def _generate(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for scope, around in tuple(self._arounds.items()):
                if around is not None and scope.acts:
                    stack.enter_context(around(args, kwargs))
            return inner(*args, **kwargs)

    def _save(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._arounds:
            warn(
                "The unedited weights are saved, since an edit changes no weights. To write a checkpoint with the edit in it: lape.export(...)."
            )
        return inner(*args, **kwargs)


_EDITS: WeakCache[nn.Module, _Edits] = WeakCache()


@contextmanager
def _replaced(model: nn.Module, name: str, value: Any) -> Iterator[None]:
    """Context manager in which an attribute of an instance is another; what others put there meanwhile stays."""
    attributes, absent = model.__dict__, object()
    before = attributes.get(name, absent)
    attributes[name] = value
    try:
        yield
    finally:
        if attributes.get(name) is value:
            del attributes[name]
            if before is not absent:
                attributes[name] = before
