"""What can be recorded beside counts and sums of activations: one file for each quantity, and one line here."""

from __future__ import annotations

from importlib import import_module

from lape.errors import OptionError
from lape.recording.engine import RecordOptions
from lape.recording.observers.observer import ALSO, SAID, Observer, Way, named
from lape.values.quantity import COUNTED, Quantity

OBSERVERS: tuple[Observer, ...] = tuple(
    import_module(f"{__name__}.{name}").OBSERVER
    for name in (
        "written",
        "residual",
        "texts",
        "histogram",
        "attribution",
        "variation",
        "columns",
    )
)


def asked(options: RecordOptions, *, tuned: bool = False) -> list[Observer]:
    """Those that record always, and those that the options ask for. Raises OptionError where `also` names one that there is not."""
    known = [one.name for one in OBSERVERS if one.option == ALSO]
    for name in named(options):
        if name not in known:
            there = (
                f"Expected some of: {', '.join(known)}"
                if known
                else "All quantities here have options of their own: see lape record --help"
            )
            raise OptionError(f"also is {name!r}. {there}.")
    return [one for one in OBSERVERS if one.asked(options, tuned=tuned)]


def refuse(way: Way, options: RecordOptions, *names: str, tuned: bool = False) -> None:
    """Refuse options that cannot be recorded in this way: those named, and those that ask for an observer that cannot. Raises
    OptionError with the first.
    """
    for name in names:
        if getattr(options, name) not in (None, False):
            raise OptionError(f"{name} {SAID[way]}")
    for one in asked(options, tuned=tuned):
        if way in one.refused:
            raise OptionError(f"{one.asking} {one.refused[way]}")


def quantities(options: RecordOptions, *, tuned: bool = False) -> dict[str, Quantity]:
    """All tensors that are recorded of a language, by name."""
    observed = [tensor for one in asked(options, tuned=tuned) for tensor in one.tensors]
    return {one.name: one for one in (*COUNTED, *observed)}
