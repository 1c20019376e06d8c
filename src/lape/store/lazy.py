"""Tensors by name that are read or added up only when asked for, so that no more than one need be in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from lape.store.tensors import Later, TensorFile


class Deferred(Mapping[str, Tensor]):
    """Tensors by name, made anew each time one is asked for."""

    @abstractmethod
    def like(self, name: str) -> Tensor:
        """A tensor of its shape and dtype without content."""

    def __contains__(self, name: object) -> bool:
        return any(name == one for one in self)  # Mapping's would make it

    def later(self, name: str) -> Later:
        """The same for a file to be written."""
        return Later(self.like(name), lambda: self[name])


class FromFile(Deferred):
    """The tensors of a file whose names begin with `prefix`, named without it."""

    def __init__(self, file: TensorFile, prefix: str = "") -> None:
        self._file, self._prefix = file, prefix
        self._names = [name.removeprefix(prefix) for name in file.names() if name.startswith(prefix)]

    def like(self, name: str) -> Tensor:
        """See `Deferred`."""
        return self._file.like(self._prefix + name)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._file.tensor(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


Join: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class Together(Deferred):
    """Two collections joined name by name, by what `joins` says of each."""

    def __init__(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor], joins: Mapping[str, Join]) -> None:
        self._a, self._b, self._joins = a, b, joins

    def like(self, name: str) -> Tensor:
        """See `Deferred`."""
        return self._joins[name](like(self._a, name), like(self._b, name))

    def __getitem__(self, name: str) -> Tensor:
        return self._joins[name](self._a[name], self._b[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._joins)

    def __len__(self) -> int:
        return len(self._joins)


def like(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor of the shape and dtype of a named one, without content."""
    return tensors.like(name) if isinstance(tensors, Deferred) else torch.empty_like(tensors[name], device="meta")


def later(tensors: Mapping[str, Tensor], name: str) -> Tensor | Later:
    """A named tensor for a file to be written: as it is, or to be made then."""
    return tensors.later(name) if isinstance(tensors, Deferred) else tensors[name]
