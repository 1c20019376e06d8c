"""The ways of making a model answer in another language that are compared, and the settings that are tried of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from lape.edit.diffmean import DiffMeanOptions
from lape.edit.steer import PUBLISHED, SteerOptions
from lape.errors import certain
from lape.measure.prompts import PLAIN, Asking

Family = Literal[
    "prompt",
    "mask",
    "neurons",
    "diffmean",
    "none",
    "ceiling",
    "target only",
    "source off",
    "random",
    "other",
    "permuted",
]
"""Families of methods that force a language."""
Control = Literal["random", "other", "permuted"]


@dataclass(frozen=True)
class Setting:
    """One way, with everything that is chosen about it. What is not set is not used."""

    family: str
    name: str
    asking: Asking = PLAIN
    sets: str = ""
    """Which neurons: lape, or difference:N for the N of largest mean difference in each language."""
    steer: SteerOptions | None = None
    control: Control | None = None
    """Instead of the target's neurons or values: see `counterparts.py`."""
    coverage: float | None = None
    """The vocabulary mask: the share of the target's text that the allowed tokens make up."""
    penalty: float = field(default=float("inf"))
    """What the mask takes from other tokens' logits."""
    diffmean: DiffMeanOptions | None = None
    ceiling: bool = False
    """Ask in the target language, and change nothing."""


NONE = Setting("none", "unedited")
CEILING = Setting("ceiling", "asked in the target language", ceiling=True)
TUNED = ("neurons", "diffmean", "prompt", "mask")
"""Families of which several settings are tried on the development questions. The others have no choice of their own: none and
the ceiling, and what follows the setting chosen for neurons.
"""


FOLLOWING = ("target only", "source off", *get_args(Control))
"""Families that follow the setting chosen for neurons: see `following`."""


def tried(family: str, layers: int) -> list[Setting]:
    """The settings of a tuned family, as many for each. `layers`: decoder blocks of the model."""
    if family == "prompt":
        return [
            _prompt("asked for in the source language", Asking(wish="source")),
            _prompt("asked for in the target language", Asking(wish="target")),
            _prompt("target-language frame", Asking(frame="target")),
            _prompt("target-language frame, asked for in the target language", Asking(wish="target", frame="target")),
            _prompt("1 example", Asking(shots=1)),
            _prompt("target-language frame, 1 example", Asking(frame="target", shots=1)),
            _prompt("target-language frame, 5 examples", Asking(frame="target", shots=5)),
            _prompt("asked for in the target language, 5 examples", Asking(wish="target", shots=5)),
        ]
    if family == "mask":
        return [
            Setting(
                "mask", f"tokens of {coverage:.0%} of the text, {_taken(penalty)}", coverage=coverage, penalty=penalty
            )
            for coverage in (0.8, 0.9, 0.97, 1.0)
            for penalty in (4.0, float("inf"))
        ]
    if family == "diffmean":
        return [
            _diffmean(DiffMeanOptions(layer, *how))
            for layer in (layers // 3, layers // 2, 2 * layers // 3, 5 * layers // 6)
            for how in ((1.0,), (2.0, "source", "generated", 8, 0.75))
        ]
    return [_neurons(*one) for one in _NEURONS]


_USUAL = SteerOptions()
_NEURONS: tuple[tuple[str, SteerOptions], ...] = (
    ("lape", PUBLISHED),
    ("difference:100", _USUAL),
    ("difference:100", replace(_USUAL, first=6, fade=0.7)),
    ("difference:100", replace(_USUAL, strength=1.5, first=8, fade=0.8)),
    ("difference:100", replace(_USUAL, strength=2.5, rise=1.2, first=12, fade=0.8)),
    ("difference:100", replace(_USUAL, how="set", first=12)),
    ("difference:100", replace(_USUAL, value="difference", strength=2.5, first=12)),
    ("difference:100", replace(_USUAL, how="off+add", strength=1.5, rise=2.0, first=8, fade=0.8)),
)


def following(chosen: Setting) -> list[Setting]:
    """The families that follow the setting chosen for neurons: parts of it, and its controls."""
    steer = certain(chosen.steer)  # only neurons are followed
    on: Any = steer.how.removeprefix("off+")
    parts = [
        replace(chosen, family="target only", steer=replace(steer, how=on)),
        replace(chosen, family="source off", steer=replace(steer, how="off")),
    ]
    return [*parts, *(replace(chosen, family=control, control=control) for control in get_args(Control))]


def _prompt(name: str, asking: Asking) -> Setting:
    return Setting("prompt", name, asking=asking)


def _neurons(sets: str, options: SteerOptions) -> Setting:
    parts = [sets, options.how]
    if not options.how.endswith("scale"):
        parts.append(f"{options.value}")
    parts.append(f"× {options.strength:g}" + (f" to {options.strength * options.rise:g}" if options.rise != 1 else ""))
    if options.layers is not None:
        parts.append(f"layers {min(options.layers)}–{max(options.layers)}")
    parts += _where(options)
    return Setting("neurons", ", ".join(parts), sets=sets, steer=options)


def _diffmean(options: DiffMeanOptions) -> Setting:
    parts = [f"after layer {options.layer} × {options.strength:g}", *_where(options)]
    return Setting("diffmean", ", ".join(parts), diffmean=options)


def _where(options: SteerOptions | DiffMeanOptions) -> list[str]:
    """In words, on which tokens an edit acts."""
    parts = [] if options.tokens == "both" else [f"{options.tokens} tokens"]
    if options.first is not None:
        parts.append(f"the first {options.first}")
    return parts if options.fade == 1 else [*parts, f"fading by {options.fade:g}"]


def _taken(penalty: float) -> str:
    return "others forbidden" if penalty == float("inf") else f"others {penalty:g} nats less likely"
