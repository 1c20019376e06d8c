"""Preregistration: which claims a study is going to judge is written down, with their hashes and the time, before it reads any data."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from lape.errors import OptionError, certain, warn
from lape.experiments import experiments
from lape.experiments.claim import Claim
from lape.experiments.context import Context
from lape.experiments.experiment import MODEL, taken
from lape.store import files
from lape.store.documents import Whole, read_json
from lape.store.files import REGISTERED

Kind = Literal["confirmatory", "exploratory"]
_SCHEMA = Whole(
    {"registered": str, "claims": {"sha256": str, "each": {...: str}, "toml": str}, "lape": str, ...: object}, "claims"
)


@dataclass(frozen=True)
class Registered:
    """What was written down before a study read any data, as its registered.json holds it."""

    at: str
    """When, in UTC: 2026-11-26T22:15:00Z."""
    sha256: str
    """Of the claims' TOML as it was read, 64 hexadecimal digits."""
    each: Mapping[str, str]
    """Claim -> `Claim.digest`."""
    lape: str
    """The version that wrote it."""

    @property
    def day(self) -> str:
        """Such as 2026-11-26."""
        return self.at[:10]


@dataclass(frozen=True)
class Standing:
    """What a verdict is worth as a test: whether the claim came before all results that bear on it."""

    kind: Kind
    why: str
    """Why it is exploratory; empty for a confirmatory one."""
    written: str
    """The day that the claim says it was written on; empty where it does not."""
    registered: str
    """The day of registration; empty where it was not registered."""
    before: bool
    """Whether its table was measured before the registration."""


def register(folder: Path, claims: Sequence[Claim], toml: str, options: Any) -> Registered | None:
    """Write registered.json into a study's folder: time, hashes and text of the claims, version, options and command; or, where a study that was
    killed goes on, read the one that is there.

    `toml`: the claims as they were read; `options`: the study's, a dataclass. None, and no registration, in a folder where something was recorded
    or measured without one, as earlier versions did. Raises OptionError for other claims than the registered ones, FileError for a damaged file.
    """
    path = folder / REGISTERED
    ours = {claim.name: claim.digest for claim in claims}
    if path.is_file():
        found = certain(registration(folder))
        if found.each != ours:
            names = [name for name in dict.fromkeys([*found.each, *ours]) if found.each.get(name) != ours.get(name)]
            raise OptionError(
                f"{folder} holds a study that was stopped, whose claims were registered at {found.at}; these differ in {', '.join(names)}. To "
                f"go on, give the registered ones, whose text is in {path}, choose another folder, or delete {folder}."
            )
        return found
    if folder.is_dir() and any(folder.glob("[!.]*")):
        warn(
            f"{folder} holds a study that was begun without registering its claims: here they are exploratory, all of them. "
            f"To register them, delete {folder} and begin anew."
        )
        return None
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sha256 = hashlib.sha256(toml.encode("utf-8", "surrogatepass")).hexdigest()
    document = {
        "registered": at,
        "lape": version("lape"),
        "claims": {"sha256": sha256, "each": ours, "toml": toml},
        "options": asdict(options),
        "command": sys.argv[1:],
    }
    files.write_json(path, document)
    return Registered(at, sha256, ours, version("lape"))


def registration(folder: Path) -> Registered | None:
    """What a study's folder holds of it; None where there is none."""
    path = folder / REGISTERED
    if not path.is_file():
        return None
    found = read_json(path, _SCHEMA)
    claims = found["claims"]
    return Registered(found.get("registered", ""), claims.get("sha256", ""), claims.get("each", {}), found["lape"])


@contextmanager
def registered(folder: Path, claims: Sequence[Claim], toml: str, options: Any) -> Iterator[Registered | None]:
    """`register`, taken back where the block ends before anything else is in the folder: nothing was recorded or measured then."""
    found = register(folder, claims, toml, options)
    try:
        yield found
    finally:
        if [path.name for path in folder.glob("*")] == [REGISTERED]:
            (folder / REGISTERED).unlink()
            with suppress(OSError):
                folder.rmdir()


def standing_of(claim: Claim, found: Registered | None, model: Mapping[str, Any], *, before: bool) -> Standing:
    """Whether a claim is confirmatory in a study of a model, as `lape.model.identity.describe` describes it.

    It is where results on the model were not known to its author, and the claim, to the letter, was registered before the data were read; not where
    its table was measured `before`.
    """
    why = ""
    if found is None or found.each.get(claim.name) != claim.digest:
        why = "not registered before the data were read"
    elif before:
        why = "measured before it was registered"
    elif claim.seen is None:
        why = "it does not say which results were known when it was written"
    elif claim.known_of(model):
        why = "results on this model were known when it was written"
    return Standing(
        "exploratory" if why else "confirmatory",
        why,
        str(claim.written or ""),
        found.day if found is not None and claim.name in found.each else "",
        before,
    )


def measured_before(context: Context, joined: bool) -> set[str]:
    """Tables whose figures were there before the study began: those that are joined from a file, and, where statistics that exist are `joined`,
    those that are computed from statistics alone.
    """
    tables: set[str] = set()
    for one in experiments().values():
        files_read = one.reads is not None and bool(one.reads(taken(one.options, context.options)))
        if MODEL not in one.needs and (joined or files_read):
            tables |= set(one.tables)
    return tables
