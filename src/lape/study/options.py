"""What a run of experiments is asked to do: what they share, and the options of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from functools import cache
from typing import Any, get_type_hints

from lape.errors import OptionError
from lape.experiments import experiments
from lape.experiments.context import SharedOptions
from lape.experiments.experiment import Experiment, taken
from lape.options import Tokens, descriptions


@dataclass(frozen=True)
class RecordedOptions(SharedOptions):
    """What is recorded, where no run is given."""

    record_tokens: Tokens | None = None
    """At most this many tokens of each language are recorded. Default: all."""
    attribution: Tokens = 2000
    """Tokens of each language on which attributions are recorded."""


def joined(shared: type[Any], several: Iterable[Experiment[Any]]) -> type[Any]:
    """A frozen dataclass with the fields of several experiments' options after those of `shared`; what each refuses, it refuses.

    Raises OptionError where two fields of a name differ in type or default, or one has no default.
    """
    kinds = [one.options for one in several]
    found: dict[str, tuple[Any, Any, str]] = {}
    for kind in kinds:
        hints = get_type_hints(kind, include_extras=True)
        for one in fields(kind):
            known = (hints[one.name], one.default)
            first = found.setdefault(one.name, (*known, descriptions(kind).get(one.name, "")))
            if first[:2] != known or one.default is MISSING:
                raise OptionError(
                    f"The option {one.name} of {kind.__name__} has no default, or another than elsewhere."
                )

    def check(self: Any) -> None:
        shared.__post_init__(self)
        for kind in kinds:
            taken(kind, self)

    made = [
        (name, hint, field(default=default, metadata={"help": said})) for name, (hint, default, said) in found.items()
    ]
    namespace = {"__post_init__": check, "__module__": __name__, "__doc__": "How much of everything is measured."}
    return make_dataclass("Options", made, bases=(shared,), namespace=namespace, frozen=True)


@cache
def study_options() -> type[Any]:
    """The options of a study: `RecordedOptions` and those of every experiment."""
    return joined(RecordedOptions, experiments().values())
