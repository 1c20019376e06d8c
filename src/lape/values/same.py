"""Whether things were made with one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lape.errors import MismatchError
from lape.values.space import NeuronSpace


class Made(Protocol):
    """What belongs to a model; it may have a `manifest` that says to which."""

    @property
    def space(self) -> NeuronSpace:
        """The model's neurons."""


def check_same_model(**made: NeuronSpace | Made) -> None:
    """Raise MismatchError unless all of these are of one model: of the same neurons, and of one checksum as far as manifests have it.

    Each is given by what the message calls it, `neurons=…, statistics=…`, the model that runs now by `model=…`; as a bare space it is
    compared by its neurons alone.
    """
    spaces = {name: space_of(one) for name, one in made.items()}
    first = next(iter(spaces.values()))
    if any(space != first for space in spaces.values()):
        raise MismatchError(_said(spaces))
    sums = {name: model["checksum"] for name, one in made.items() if (model := model_of(one)).get("checksum")}
    if len(set(sums.values())) > 1:
        raise MismatchError(_said({name: f"checksum {known[:12]}…" for name, known in sums.items()}))


def space_of(made: NeuronSpace | Made) -> NeuronSpace:
    """The neurons of the model that something belongs to."""
    return made if isinstance(made, NeuronSpace) else made.space


def model_of(made: NeuronSpace | Made) -> dict[str, str]:
    """What a manifest says of the model that something was made with; empty without one."""
    found: dict[str, str] = getattr(made, "manifest", {}).get("model", {})
    return found


def _said(found: Mapping[str, object]) -> str:
    parts = [
        f"this model has {one}"
        if name == "model"
        else f"the {name} {'to one' if k else 'belong to a model'} with {one}"
        for k, (name, one) in enumerate(found.items())
    ]
    again = "Record this model and find its neurons: lape record, lape identify."
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}. {again if 'model' in found else 'Use those of one model.'}"
