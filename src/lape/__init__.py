"""lape finds the neurons a language model uses for each human language, shows what they do, and switches them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lape.errors import LapeError

if TYPE_CHECKING:
    from lape.detect import identify
    from lape.edit import Add, Off, Scale, Set, edited
    from lape.evaluate.forcing import forcing
    from lape.evaluate.perplexity import perplexity
    from lape.exporting import export
    from lape.models import load
    from lape.neurons import LanguageNeurons
    from lape.recording import record
    from lape.reporting import report
    from lape.stats import ActivationStats
    from lape.steering import steer

_HOMES = {
    "load": "lape.models",
    "record": "lape.recording",
    "ActivationStats": "lape.stats",
    "identify": "lape.detect",
    "LanguageNeurons": "lape.neurons",
    "Off": "lape.edit",
    "Set": "lape.edit",
    "Add": "lape.edit",
    "Scale": "lape.edit",
    "edited": "lape.edit",
    "steer": "lape.steering",
    "export": "lape.exporting",
    "perplexity": "lape.evaluate.perplexity",
    "forcing": "lape.evaluate.forcing",
    "report": "lape.reporting",
}
__all__ = ["ActivationStats", "Add", "LanguageNeurons", "LapeError", "Off", "Scale", "Set"]
__all__ += ["edited", "export", "forcing", "identify", "load", "perplexity", "record", "report", "steer"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and `lape --help` must not."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lape' has no attribute {name!r}")
