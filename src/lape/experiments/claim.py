"""Claims: written down before the run, in TOML beside their experiment, judged by a table's figure and its interval."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from lape.errors import FileError, LapeError, OptionError
from lape.store.documents import Schema, misfit

Rule = Literal["above", "below", "within"]
Range = Literal["interval", "spread"]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, of a critic, or of ours, as a table `[[claims]]` of an experiment's TOML file holds it.

    Example:
        >>> from pathlib import Path
        >>> from lape.experiments.claim import read
        >>> _ = Path("mine.toml").write_text('''
        ... [[claims]]
        ... name = "late"
        ... says = "Language neurons lie in the upper half."
        ... source = "ours"
        ... table = "layers"
        ... value = "centre"
        ... margin = 0.5
        ... rule = "above"
        ... where = { language = "over" }
        ... written = 2026-11-24
        ... seen = ["gemma-3-270m"]
        ... ''')
        >>> claim, = read(Path("mine.toml"))
        >>> claim.rule, claim.margin, claim.member, claim.range
        ('above', 0.5, 'language', 'interval')
    """

    name: str
    says: str
    """In words."""
    source: str
    """Who claims it."""
    table: str
    """The table that decides."""
    value: str
    """Its column with the figure; its ends are in `VALUE_low` and `VALUE_high`, or in `low` and `high`, and the bootstrap's quantiles, which a
    claim needs not to hold, in `VALUE_quantiles` or `quantiles`.
    """
    margin: float
    """What the figure is compared with, in the column's own unit."""
    rule: Rule
    """On which side of the margin the whole interval must lie for the claim to hold; or `within`: between minus the margin and the margin, for
    a claim that something is nothing.
    """
    where: Mapping[str, Any]
    """The rows that decide: column -> the value it must have, or several of them; "over" stands for all languages but the main one."""
    member: str = "language"
    """The column that tells the rows apart. Each must hold; that one does not is corrected by Holm over them."""
    range: Range = "interval"
    """What the ends are: a 95 % interval, or a spread (over ways of halving the text, say), which has no error rate."""
    written: date | None = None
    """The day on which its statistic, margin and rule were written. Its words may be younger."""
    seen: tuple[str, ...] | None = None
    """Models on which results that bear on it were known to its author when it was written: names, or checksums. It is no test on those."""


def beside(file: str) -> Path:
    """The claims of the experiment that a module's `__file__` is of: claims.toml in its folder, or NAME.toml beside NAME.py."""
    path = Path(file)
    return path.with_name("claims.toml") if path.stem == "__init__" else path.with_suffix(".toml")


def read(path: Path) -> tuple[Claim, ...]:
    """Claims from a TOML file: an array of tables `[[claims]]` with the fields of `Claim`."""
    try:
        return parsed(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise FileError(f"There is no file {path}. Expected a TOML file with [[claims]].") from error
    except LapeError:
        raise
    except (UnicodeDecodeError, OSError) as error:
        raise FileError(f"{path} is not a TOML file of claims: {error}.") from error


def parsed(text: str, where: str) -> tuple[Claim, ...]:
    """Claims from TOML; `where` it stands, for messages."""
    try:
        found = tomllib.loads(text).get("claims")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FileError(f"{where} is not a TOML file of claims: {error}.") from error
    if not isinstance(found, list) or not found:
        raise FileError(f"{where} holds no claims. Expected one or more tables [[claims]].")
    claims = tuple(_claim(where, one) for one in found)
    names = [claim.name for claim in claims]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"{where}: two claims are named {twice}. Give each its own name.")
    return claims


_VALUE = (str, int, float, bool)
_SCHEMA: Schema = {
    **dict.fromkeys(("name", "says", "source", "table", "value", "rule", "member", "range"), str),
    "margin": float,
    "where": {...: (*_VALUE, [_VALUE])},
    "seen": [str],
}
_OPTIONAL = {field.name for field in fields(Claim) if field.default is not MISSING} | {"where"}


def _claim(where: str, one: Any) -> Claim:
    known = [field.name for field in fields(Claim)]
    name = one.get("name", "?") if isinstance(one, dict) else "?"
    missing = [key for key in known if key not in _OPTIONAL and (not isinstance(one, dict) or key not in one)]
    unknown = sorted(set(one) - set(known)) if isinstance(one, dict) else []
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
        raise OptionError(f"{where}: the claim {name} {what}. Expected {', '.join(known)}.")
    if wrong := misfit(one, _SCHEMA, name if isinstance(name, str) else "?"):
        raise OptionError(f"{where}: in the claim {wrong}.")
    if not abs(one["margin"]) <= sys.float_info.max:
        raise OptionError(f"{where}: the claim {name} has the margin {one['margin']}. Expected a finite number.")
    for key, kind in (("rule", Rule), ("range", Range)):
        if key in one and one[key] not in get_args(kind):
            raise OptionError(
                f"{where}: the claim {name} has the {key} {one[key]!r}. Expected {' or '.join(get_args(kind))}."
            )
    if one["rule"] == "within" and one["margin"] <= 0:
        raise OptionError(
            f"{where}: the claim {name} is to lie within {one['margin']:g}. Expected a margin above 0: from −margin to margin."
        )
    if "written" in one and type(one["written"]) is not date:
        raise OptionError(
            f"{where}: the claim {name} was written {one['written']}. Expected a day, without quotes: written = 2026-11-24."
        )
    seen = tuple(one["seen"]) if "seen" in one else None
    return Claim(**{"where": {}, **one, "margin": float(one["margin"]), "seen": seen})
