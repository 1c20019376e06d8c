"""One thought, whether things were made with one model: what they say of it, compared in one place."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lape.errors import MismatchError, warn
from lape.values.space import NeuronSpace

NAMES = ("id", "path", "revision")
"""What a manifest says of a model so that it can be found again; it never decides whether two are the same."""
NEAR = {"float64": 0.02, "float32": 0.02}
"""How far answers of one model in one number format may lie apart on two machines, as a share of their size; in others `NEAR_ROUNDED`."""
NEAR_ROUNDED = 0.25
NEAR_FORMATS = 0.9
"""The same of one model in two number formats; those of models that have nothing to do with each other lie about 1.4 apart."""
_CLOSE = 1e-6


class Made(Protocol):
    """What belongs to a model; it may have a `manifest` that says to which."""

    @property
    def space(self) -> NeuronSpace:
        """The model's neurons."""


@dataclass(frozen=True)
class Verdict:
    """What two descriptions of a model say of each other."""

    differ: tuple[str, ...] = ()
    """What shows that they are of two models, each with what both say."""
    unsure: tuple[str, ...] = ()
    """Why it cannot be shown that they are of one."""
    older: bool = False
    """Whether one of them was written by a version that noted a model's weights alone."""


def check_same_model(**made: NeuronSpace | Made) -> None:
    """Raise MismatchError unless all of these are of one model: of the same neurons, and of what computes the same as far as manifests say.

    Each is given by what the message calls it, `neurons=…, statistics=…`, the model that runs now by `model=…`; as a bare space it is
    compared by its neurons alone. What cannot be compared, such as weights in another number format, is compared by what can be, and said
    in a `LapeWarning`.
    """
    _check(made, exactly=False)


def check_adds_up(**made: NeuronSpace | Made) -> None:
    """`check_same_model` of what is to be added up: what cannot be compared is refused too."""
    _check(made, exactly=True)


def _check(made: Mapping[str, NeuronSpace | Made], *, exactly: bool) -> None:
    spaces = {name: space_of(one) for name, one in made.items()}
    first = next(iter(spaces.values()))
    if any(space != first for space in spaces.values()):
        raise MismatchError(_said(spaces))
    known = {name: manifest for name, one in made.items() if (manifest := manifest_of(one)).get("model")}
    if len(known) < 2:
        return
    running = "model" if "model" in known else list(known)[-1]
    for name, manifest in known.items():
        if manifest is known[running]:
            continue
        verdict = compared(manifest, known[running])
        if verdict.differ or (exactly and verdict.unsure):
            raise MismatchError(_refusal(name, manifest, running, known[running], verdict))
        if verdict.older:
            warn(
                f"The {name} or the {running} were recorded by an older version of lape, which noted only a model's weights: "
                "whether its configuration and adapters are the same is not known. To know, record the model again."
            )
        if verdict.unsure:
            warn(
                f"Whether the {name} are of {'this model' if running == 'model' else f'the same model as the {running}'} could not be "
                f"established exactly: {'; '.join(verdict.unsure)}. Load the model in the format that it was recorded in, or record it in this one."
            )


def compared(a: Mapping[str, Any], b: Mapping[str, Any], *, tuned: bool = False) -> Verdict:
    """What the manifests of two things say: of the model's weights, of the configuration that computes, of adapters, of what it answers, and of
    tokenizer and BOS. Keys that one of them lacks, as those of older files do, decide nothing.

    `tuned`: whether weights that a model may have been tuned to from the other's leave it unsure that they are of one, in place of showing that
    they are of two: those whose answers are near.
    """
    ours, theirs = a.get("model") or {}, b.get("model") or {}
    parts = [
        _weights(ours, theirs, tuned),
        _configs(ours, theirs),
        _adapters(ours, theirs),
        _tokenizers(a, b),
        _bos(a, b),
    ]
    noted = [one.get("probe") for one in (ours, theirs) if one.get("checksum")]
    return Verdict(
        tuple(one for part in parts for one in part.differ),
        tuple(one for part in parts for one in part.unsure),
        older=len(noted) == 2 and any(noted) and not all(noted),
    )


def lasting(described: Mapping[str, Any]) -> dict[str, Any]:
    """What of a description has to be the same when a run that was stopped goes on: not the model's names, nor what rounding changes."""
    model = described.get("model")
    if not isinstance(model, Mapping):
        return dict(described)
    kept = {key: value for key, value in model.items() if key not in (*NAMES, "source", "probe")}
    return {**described, "model": kept}


def _weights(a: Mapping[str, Any], b: Mapping[str, Any], tuned: bool = False) -> Verdict:
    both = a.get("checksum") and b.get("checksum")
    if not both:
        return Verdict()
    if a.get("dtype") == b.get("dtype") or None in (a.get("dtype"), b.get("dtype")):
        apart = _apart(a, b)
        if a["checksum"] != b["checksum"]:
            said = f"checksum {a['checksum'][:12]}… and {b['checksum'][:12]}…"
            if tuned and apart is not None and apart <= NEAR_FORMATS:
                return Verdict(unsure=(f"{said}, with hidden states that differ by {apart:.2g} of their norm",))
            return Verdict((said,))
        far = apart is not None and apart > NEAR.get(str(a.get("dtype")), NEAR_ROUNDED)
        said = (
            f"hidden states that differ by {apart:.2g} of their norm: a buffer, a module or a hook was changed"
            if far
            else ""
        )
        return Verdict((said,)) if far else Verdict()
    if a.get("source") and a.get("source") == b.get("source"):
        return Verdict()
    formats = f"weights in {a['dtype']} and in {b['dtype']}"
    apart = _apart(a, b)
    if apart is None:
        return Verdict(unsure=(formats,))
    if apart > NEAR_FORMATS:
        return Verdict((f"{formats}, and hidden states that differ by {apart:.2g} of their norm",))
    return Verdict(
        unsure=(f"{formats} (hidden states differ by {apart:.2g} of their norm, which rounding alone can explain)",)
    )


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """How far the answers to a few fixed tokens lie apart, as a share of their size; None where it is not known of both."""
    ours, theirs = (unpacked(one.get("probe")) for one in (a, b))
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return None
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-9))


def _configs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Verdict:
    ours, theirs = a.get("config"), b.get("config")
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        return Verdict()
    differ: list[str] = []
    unsure: list[str] = []
    for key in ours:
        if key not in theirs or _equal(ours[key], theirs[key]):
            continue
        said = f"{key} {ours[key]} and {theirs[key]}"
        (unsure if None in (ours[key], theirs[key]) else differ).append(said)
    return Verdict(tuple(differ), tuple(unsure))


def _equal(a: Any, b: Any) -> bool:
    numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (a, b))
    return math.isclose(a, b, rel_tol=_CLOSE) if numbers else bool(a == b)


def _adapters(a: Mapping[str, Any], b: Mapping[str, Any]) -> Verdict:
    ours, theirs = a.get("adapters"), b.get("adapters")
    if ours is None or theirs is None or ours == theirs:
        return Verdict()
    return Verdict((f"adapters {ours} and {theirs}",))


def _tokenizers(a: Mapping[str, Any], b: Mapping[str, Any]) -> Verdict:
    ours, theirs = a.get("tokenizer") or {}, b.get("tokenizer") or {}
    if not ours.get("hash") or not theirs.get("hash") or ours["hash"] == theirs["hash"]:
        return Verdict()
    said = f"tokenizers {ours['hash'][:12]}… and {theirs['hash'][:12]}…"
    if ours.get("probe") and ours.get("probe") == theirs.get("probe"):
        return Verdict(unsure=(f"{said}, which split a text of many scripts alike",))
    return Verdict((said,))


def _bos(a: Mapping[str, Any], b: Mapping[str, Any]) -> Verdict:
    ours, theirs = a.get("bos"), b.get("bos")
    if ours is None or theirs is None or ours == theirs:
        return Verdict()
    return Verdict((f"rows that begin with {ours} and with {theirs} (bos)",))


def packed(probe: Tensor) -> str:
    """A few numbers as a manifest keeps them."""
    return base64.b64encode(probe.half().cpu().numpy().tobytes()).decode("ascii")


def unpacked(probe: object) -> Tensor | None:
    """(n,) float64: what `packed` made; None for anything else."""
    if not isinstance(probe, str):
        return None
    try:
        held = torch.frombuffer(bytearray(base64.b64decode(probe, validate=True)), dtype=torch.float16).double()
    except (TypeError, ValueError):
        return None
    return held if bool(torch.isfinite(held).all()) else None


def space_of(made: NeuronSpace | Made) -> NeuronSpace:
    """The neurons of the model that something belongs to."""
    return made if isinstance(made, NeuronSpace) else made.space


def manifest_of(made: NeuronSpace | Made) -> Mapping[str, Any]:
    """What something says of how it was made; empty where it says nothing."""
    found: Mapping[str, Any] = getattr(made, "manifest", {})
    return found


@dataclass(frozen=True)
class Running:
    """A model that runs now, as `check_same_model` takes it."""

    space: NeuronSpace
    manifest: Mapping[str, Any] = field(default_factory=dict)


def place_of(model: Mapping[str, Any]) -> str:
    """What `lape.load` finds a manifest's model by: its path where it was a local one, else its id."""
    return str(model.get("path") or model.get("id") or "")


def _refusal(name: str, ours: Mapping[str, Any], running: str, theirs: Mapping[str, Any], verdict: Verdict) -> str:
    what = "; ".join([*verdict.differ, *verdict.unsure])
    of = (ours.get("model") or {}).get("id")
    first = f"The {name} were made with {of}" if of else f"The {name} were made with a model"
    if running == "model":
        return f"{first}, which is not this model: {what}. Record this model (lape record), or load the other one."
    other = (theirs.get("model") or {}).get("id")
    return (
        f"{first}, the {running} with {other if other != of and other else 'another'}: {what}. "
        "Use those of one model, recorded with the same tokenizer and options."
    )


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
