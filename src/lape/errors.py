"""The errors a user can meet. Each message says what was found, what was expected, and what to type next."""

from __future__ import annotations

import warnings


class LapeError(Exception):
    """Root of every error that `lape` raises for something a user can mend. The command line prints it and exits with 2."""


class TextError(LapeError):
    """A text source, a language tag or a corpus is not usable."""


class ModelError(LapeError):
    """A model cannot be loaded, or its neurons cannot be found and proven."""


class FileError(LapeError):
    """A file of `lape` is missing, damaged, in the way, or cannot be written."""


class MismatchError(LapeError):
    """Two things that must come from the same model or text do not."""


class OptionError(LapeError):
    """An option has a value that makes no sense here."""


class LapeWarning(UserWarning):
    """Something that may make a result mean less than it seems. The command line prints it, each text once."""


def warn(message: str) -> None:
    """Give a `LapeWarning`: what was found, what follows from it, and what to type for more."""
    warnings.warn(message, LapeWarning, stacklevel=3)
