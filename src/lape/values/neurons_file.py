"""The file of language neurons: sealed safetensors, of which each tensor is held to what it can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lape.data.languages import check_tags
from lape.errors import FileError
from lape.store.documents import Schema
from lape.store.run import MANIFEST
from lape.store.tensors import TensorFile, write_tensors
from lape.values import profile
from lape.values.profile import RECORDED, Profile
from lape.values.space import NeuronSpace

KIND = "language neurons"
FORMAT = 2
"""1: no profile, and scores of all neurons of the model; it is still read. 2: a profile of the selected neurons (`lape.values.profile`)."""
HEADER: Mapping[str, Schema] = {
    "languages": [str],
    "space": list,
    "method": str,
    "options": dict,
    "manifest": MANIFEST,
    "notes": [str],
}
_PLAIN = ("method", "options", "manifest")
_FINGERPRINTS = "fingerprints"


@dataclass(frozen=True, eq=False)
class Content:
    """What the file holds: see the fields of `LanguageNeurons`."""

    space: NeuronSpace
    sets: Mapping[str, Tensor]
    profile: Profile | None
    stability: Mapping[str, Tensor]
    fingerprints: Tensor | None
    method: str
    options: dict[str, Any]
    manifest: dict[str, Any]
    notes: tuple[str, ...]


def write(path: Path, content: Content) -> None:
    """Write the file, in one step."""
    tensors = {_set(language): flat for language, flat in content.sets.items()}
    tensors |= {_stability(language): shares for language, shares in content.stability.items()}
    header: dict[str, Any] = {
        "kind": KIND,
        "format": FORMAT,
        "languages": list(content.sets),
        "space": content.space.to_json(),
        "notes": list(content.notes),
        **{name: getattr(content, name) for name in _PLAIN},
    }
    if content.profile is not None:
        tensors |= content.profile.tensors()
        header[RECORDED] = list(content.profile.languages)
    if content.fingerprints is not None:
        tensors[_FINGERPRINTS] = content.fingerprints
    write_tensors(path, tensors, header)


def read(path: Path) -> Content:
    """Read the file. Raises FileError for one that is damaged, or cannot be."""
    file = TensorFile(path, KIND, HEADER, format=FORMAT)
    header, held = file.header, set(file.names())
    with file.reading():
        space = NeuronSpace.from_json(header["space"])
        languages = check_tags(header["languages"])
        union = _check(file, space)
    return Content(
        space=space,
        sets={language: file.tensor(_set(language)) for language in languages},
        profile=Profile.read(file, space, union),
        stability={one: file.tensor(_stability(one)) for one in languages if _stability(one) in held},
        fingerprints=file.tensor(_FINGERPRINTS) if _FINGERPRINTS in held else None,
        notes=tuple(header["notes"]),
        **{name: header[name] for name in _PLAIN},
    )


def _check(file: TensorFile, space: NeuronSpace) -> Tensor:
    """Refuse tensors that are not what they should be, now or when they are read; gives the neurons of any set. Raises FileError."""
    languages, held = file.header["languages"], set(file.names())
    length = {name: file.like(name).numel() for name in held}
    sets = {_set(one): (length.get(_set(one), 0),) for one in languages}
    if not sets.keys() <= held:
        raise FileError(f"It has {', '.join(sorted(held))} for {', '.join(languages)}.")
    shares = {_stability(one): sets[_set(one)] for one in languages}
    _fit(file, {**sets, _FINGERPRINTS: (length.get(_FINGERPRINTS, 0),)}, torch.int64)
    _fit(file, shares, torch.float64)
    profile.check(file)
    known = {*sets, *shares, _FINGERPRINTS}
    for name in sets:
        flat = file.tensor(name)
        if len(flat) and (not bool((flat[1:] > flat[:-1]).all()) or int(flat[0]) < 0 or int(flat[-1]) >= len(space)):
            raise FileError(f"{name} does not hold rising indices from 0 to {len(space) - 1}.")
    union: Tensor = torch.unique(torch.cat([file.tensor(name) for name in sets]))
    of_profile = profile.shapes(space, file.header.get(RECORDED, ()), len(union))
    if odd := sorted(held - known - of_profile.keys()):
        raise FileError(f"It has {', '.join(odd)} beside what neurons of {', '.join(languages)} have.")
    _fit(file, of_profile, torch.float64)

    def laws(name: str, tensor: Tensor) -> str | None:
        if name in shares and not bool(((tensor >= 0) & (tensor <= 1)).all()):
            return f"{name} holds shares that are not between 0 and 1"
        return profile.broken(name, tensor) if name in of_profile else None

    file.obey(laws)
    return union


def _fit(file: TensorFile, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Refuse those of the named tensors that are there in another shape or number format."""
    for name in sorted(shapes.keys() & set(file.names())):
        like = file.like(name)
        if (tuple(like.shape), like.dtype) != (shapes[name], dtype):
            raise FileError(f"{name} is {tuple(like.shape)}, {like.dtype}; expected {shapes[name]}, {dtype}.")


def _set(language: str) -> str:
    return f"set/{language}"


def _stability(language: str) -> str:
    return f"stability/{language}"
