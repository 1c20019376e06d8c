"""The errors a user can meet. Each message says what was found, what was expected, and what to type next."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class LapeError(Exception):
    """Root of every error that `lape` raises for something a user can mend. The command line prints it and exits with 2.

    `FileError` is an OSError too, the others are ValueErrors: `TextError`, `ModelError`, `MismatchError` and `OptionError`. `MissingLanguageError`, a
    `TextError`, is a KeyError too.

    Example:
        >>> try:
        ...     lape.identify(stats, rate=2)
        ... except lape.LapeError as error:
        ...     print(error)
        rate is 2. Expected a share between 0 and 1, such as 0.01.
    """


class TextError(LapeError, ValueError):
    """A text source, a language tag or a corpus is not usable."""


class MissingLanguageError(TextError, KeyError):
    """A mapping has no such language. Also a KeyError, so that `get` and `except KeyError` work as on any mapping."""

    __str__ = Exception.__str__  # KeyError's quotes the message


class ModelError(LapeError, ValueError):
    """A model cannot be loaded, or its neurons cannot be found and proven."""


class FileError(LapeError, OSError):
    """A file of `lape` is missing, damaged, in the way, or cannot be written."""


class MismatchError(LapeError, ValueError):
    """Two things that must come from the same model or text do not."""


class OptionError(LapeError, ValueError):
    """An option has a value that makes no sense here."""


class LapeWarning(UserWarning):
    """Something that may make a result mean less than it seems. The command line prints it, each text once."""


def warn(message: str) -> None:
    """Give a `LapeWarning`: what was found, what follows from it, and what to type for more."""
    warnings.warn(message, LapeWarning, stacklevel=3)


@contextmanager
def foreign(kind: type[LapeError], say: Callable[[str], str]) -> Iterator[None]:
    """Around every call that reads what somebody else made: whatever a library throws at it becomes one paragraph.

    `say`: the message, of what was thrown. Our own errors, a lack of memory and Ctrl-C pass as they are.
    """
    try:
        yield
    except (LapeError, MemoryError):
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of libraries written in Rust: no Exception
        if not isinstance(error, Exception) and not panic:
            raise
        raise kind(say(told(error))) from error


class passed_over:
    """`contextlib.suppress` for what others raise: our own errors pass, though they are ValueErrors and OSErrors."""

    def __init__(self, *kinds: type[Exception]) -> None:
        self.kinds = kinds

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.kinds) and not issubclass(kind, LapeError)


def certain(value: T | None) -> T:
    """A value that cannot be None here, since the caller made sure. Raises RuntimeError where it is: a mistake in lape, also under `python -O`."""
    if value is None:
        raise RuntimeError("a value is None where lape made sure that it is not")
    return value


def told(error: BaseException) -> str:
    """What an error of a library says, in one short line; its kind where that is all there is."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, pickle.UnpicklingError):  # PyTorch's own words tell how to run the code
        return "it is a damaged pickle, or one that would run code, which is never done"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:3])[:600]
    bare = not said or isinstance(error, (KeyError, IndexError, AttributeError, TypeError, ZeroDivisionError))
    return f"{type(error).__name__}{': ' if said else ''}{said}" if bare else said
