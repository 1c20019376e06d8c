"""What is kept about a model or a module as long as that lives."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Key = TypeVar("Key")
Value = TypeVar("Value")


class WeakCache(Generic[Key, Value]):
    """A dict whose entries last as long as their keys, for several threads at once."""

    def __init__(self) -> None:
        self._values: WeakKeyDictionary[Key, Value] = WeakKeyDictionary()
        self._lock = RLock()

    def get(self, key: Key) -> Value | None:
        """The value of a key; None where there is none."""
        with self._lock:
            return self._values.get(key)

    def set(self, key: Key, value: Value) -> None:
        """Keep a value. It must not refer to its key, or both stay for ever."""
        with self._lock:
            self._values[key] = value

    def drop(self, key: Key) -> None:
        """Forget the value of a key, if there is one."""
        with self._lock:
            self._values.pop(key, None)

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made where there is none yet: once, whoever else asks at the same time."""
        with self._lock:
            value = self._values.get(key)
            if value is None:
                value = self._values[key] = make()
            return value
