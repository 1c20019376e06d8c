"""While a model is edited: for whom it runs, what may be done with it, and that its `generate` says where a prompt ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial, wraps
from threading import RLock
from typing import Any, ClassVar, NoReturn, TypeAlias
from weakref import WeakKeyDictionary, ref

from torch import nn

from lape.errors import ModelError, warn
from lape.model.body import body, unwrapped
from lape.model.scope import Handle, Scope, eagerly, inside

Around: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], AbstractContextManager[object]]
"""What a call of `generate` runs within, by its arguments."""


@contextmanager
def editing(model: nn.Module, *, changes: bool = True, generating: Around | None = None) -> Iterator[None]:
    """While inside, the model runs for those inside of an edit of it; others are refused. On leaving, in whatever order, it is
    what it was.

    `changes`: whether this edit changes anything.
    """
    model = unwrapped(model)
    edits, scope = _Edits.of(model), Scope()
    try:
        with scope:
            edits.enter(model, scope, changes=changes, generating=generating)
            try:
                yield
            finally:
                edits.leave(scope)
    finally:
        del scope  # a traceback would keep it


def refuse_edited(model: nn.Module, what: str) -> None:
    """Refuse what would take an edited model for the model itself. Raises ModelError inside of an edit that changes something."""
    if _Edits.of(unwrapped(model)).change_here:
        raise ModelError(
            f"The model is edited here, and {what} would take the edited model for the unedited one. Do that outside of `with edited(...)` or `steer(...)`."
        )


class _Edits:
    """The edits of one model that have been entered, whoever entered them."""

    _all: ClassVar[WeakKeyDictionary[nn.Module, _Edits]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._changes: dict[Scope, bool] = {}
        self._generating: dict[Scope, Around] = {}
        self._left: dict[int, ref[Scope]] = {}
        """Edits that were left, as long as something that was started inside of them may go on."""
        self._guards: list[Handle] = []
        self._own = ExitStack()
        self._lock = RLock()

    @classmethod
    def of(cls, model: nn.Module) -> _Edits:
        return cls._all.setdefault(model, cls())

    def __reduce__(self) -> tuple[type[_Edits], tuple[()]]:
        return _Edits, ()  # of a copy's guard: nobody edits the copy

    @property
    def change_here(self) -> bool:
        """Whether whoever asks is inside of an edit that changes something."""
        return any(changes and scope.here for scope, changes in tuple(self._changes.items()))

    def enter(self, model: nn.Module, scope: Scope, *, changes: bool, generating: Around | None) -> None:
        with self._lock:
            if not self._changes:
                self._take(model)
            self._changes[scope] = changes
            if generating is not None:
                self._generating[scope] = generating

    def leave(self, scope: Scope) -> None:
        with self._lock:
            del self._changes[scope]
            self._generating.pop(scope, None)
            self._left[id(scope)] = ref(scope, partial(self._over, id(scope)))
            if not self._changes:
                self._own.close()

    def _over(self, number: int, _scope: object) -> None:
        """Nothing that was started inside of an edit goes on."""
        with self._lock:
            self._left.pop(number, None)
            if not self._left and not self._changes:
                for guard in self._guards:
                    guard.remove()
                self._guards.clear()

    def _take(self, model: nn.Module) -> None:
        """Guard the model's forwards, and put what is its own while it is edited in the place of its methods."""
        if not self._guards:
            check = eagerly(self._check)
            parts = dict.fromkeys((model, body(model)))  # OPT's model goes past its own body
            self._guards += [part.register_forward_pre_hook(check, prepend=True) for part in parts]
        for module in model.modules():
            self._own.enter_context(_own(module, "__getstate__", _refuse_copy))
        for name, method in (("generate", self._generate), ("save_pretrained", self._save)):
            if hasattr(model, name):
                inner = getattr(model, name)
                self._own.enter_context(_own(model, name, wraps(inner)(partial(method, inner))))

    def _check(self, *_: object) -> None:
        """Refuse a forward of which it cannot be told whether it is to be edited."""
        here = inside()
        if any(id(scope) in self._left and scope.outlived for scope in here):
            raise ModelError(
                "The edit inside which this thread or task was started has ended, so that it would continue with the unedited model. "
                "Let it end (thread.join()) before `with edited(...)` or `steer(...)` is left."
            )
        if self._changes and not any(scope in self._changes for scope in here):
            raise ModelError(
                "The model is edited by another thread or task, and this one is not inside an edit, so that it is unclear which of the two it is to run. "
                "To run the edited model, start the thread or task inside the edit; in a pool: pool.submit(contextvars.copy_context().run, f). "
                "To run the unedited one meanwhile: with lape.edited(model, []): …"
            )

    def _generate(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        arounds = [around for scope, around in tuple(self._generating.items()) if scope.here]
        with ExitStack() as stack:
            for around in arounds:
                stack.enter_context(around(args, kwargs))
            return inner(*args, **kwargs)

    def _save(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if any(self._changes.values()):
            warn(
                "The unedited weights are saved, since an edit changes no weights. To write a checkpoint with the edit in it: lape.export(...)."
            )
        return inner(*args, **kwargs)


@contextmanager
def _own(module: nn.Module, name: str, value: Any) -> Iterator[None]:
    """While inside, a module's attribute is another; what was put there meanwhile stays."""
    held = module.__dict__
    absent = object()
    before = held.get(name, absent)
    held[name] = value
    try:
        yield
    finally:
        if held.get(name) is value:
            del held[name]
            if before is not absent:
                held[name] = before


def _refuse_copy() -> NoReturn:
    raise ModelError(
        "A model is neither copied nor pickled while it is edited: the copy would stay edited. Copy it outside of `with edited(...)` or "
        "`steer(...)`, or write a checkpoint with the edit in it: lape.export(...)."
    )
