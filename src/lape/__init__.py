"""lape finds the neurons a language model uses for each human language, shows what they do, and switches them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lape.errors import LapeError

if TYPE_CHECKING:
    from lape.detect.identify import identify
    from lape.edit.edit import Add, Off, Scale, Set, edited
    from lape.edit.steer import steer
    from lape.experiments.perplexity.run import perplexity
    from lape.model.load import load
    from lape.recording.record import record
    from lape.reporting import report
    from lape.ship.export import export
    from lape.values.neurons import LanguageNeurons
    from lape.values.stats import ActivationStats

_HOMES = {
    "load": "lape.model.load",
    "record": "lape.recording.record",
    "ActivationStats": "lape.values.stats",
    "identify": "lape.detect.identify",
    "LanguageNeurons": "lape.values.neurons",
    "Off": "lape.edit.edit",
    "Set": "lape.edit.edit",
    "Add": "lape.edit.edit",
    "Scale": "lape.edit.edit",
    "edited": "lape.edit.edit",
    "steer": "lape.edit.steer",
    "export": "lape.ship.export",
    "perplexity": "lape.experiments.perplexity.run",
    "report": "lape.reporting",
}
__all__ = ["ActivationStats", "Add", "LanguageNeurons", "LapeError", "Off", "Scale", "Set"]
__all__ += ["edited", "export", "identify", "load", "perplexity", "record", "report", "steer"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and `lape --help` must not."""
    if name == "__version__":
        return version("lape")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lape' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What completion offers: the public names, and the version."""
    return [*__all__, "__version__"]
