"""What captions say: of how many something is, how its intervals were made, which model it is about and what made it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import polars as pl

from lape.figures.style import Tables
from lape.measure.bootstrap import FEWEST
from lape.measure.intervals import MEAN

Facts: TypeAlias = Mapping[str, Any]
"""What the run.json beside a table says: the model, the command, the options."""
Caption: TypeAlias = Callable[[Tables, Facts], str]
QUESTIONS = (
    "95 % bootstrap (BCa under 400 units) over questions, resampled jointly over languages and conditions{resamples}."
)
"""How intervals over questions are made."""
"""How intervals are made of questions that share passages."""


def span(values: pl.Series) -> str:
    """The smallest and the largest of some whole numbers."""
    low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def sizes(named: Iterable[tuple[str, int]]) -> str:
    """How many of each."""
    return ", ".join(f"{name} {count:,}" for name, count in named)


def sets(tables: Tables) -> str:
    """How many neurons each language has, by its histogram."""
    return sizes(tables["histogram"].group_by("language", maintain_order=True).agg(pl.col("neurons").sum()).iter_rows())


def selected(facts: Facts) -> str:
    """How the sets were chosen: the options that are one number or word."""
    return "".join(
        f" Chosen by {method}: {', '.join(_option(name, value) for name, value in options.items() if _plain(value))}."
        for method, options in (facts.get("chosen") or {}).items()
    )


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _option(name: str, value: Any) -> str:
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def units(table: pl.DataFrame, facts: Facts) -> str:
    """How intervals over units of text are made."""
    if table["low"].null_count():
        return f"No intervals where there are under {FEWEST} units of text (documents, sentences or blocks of lines): here {span(table['units'])}."
    return (
        f"95 % bootstrap (BCa under 400 units) over {span(table['units'])} units of text (documents, sentences or blocks of lines), resampled jointly "
        f"over languages and conditions{resamples(facts)}."
    )


def resamples(facts: Facts) -> str:
    """How many resamples stand behind a bootstrap, in words, where that is recorded."""
    options = facts.get("options") or {}
    count = options.get("resamples") or (options.get("perplexity") or {}).get("resamples")
    return f", {count:,} resamples" if count else ""


def sentences(name: str, about: str) -> Caption:
    """Of what a study measures on parallel sentences."""

    def say(tables: Tables, facts: Facts) -> str:
        table = tables[name]
        known, evaluated = "units" in table.columns and table["units"].count(), facts.get("evaluated") or {}
        count: Any = table["units"].max() if known else evaluated.get("documents") or evaluated.get("lines")
        over, units = f"{count:,} " if count else "", "documents" if "documents" in evaluated else "sentences"
        return (
            f"{about} 95 % bootstrap (BCa under 400 units) over {over}parallel {units}, resampled jointly over languages and conditions"
            f"{resamples(facts)}."
        )

    return say


def counted(name: str, about: str, column: str, what: str, interval: str) -> Caption:
    """Of a table in which a column says of how many each row is."""

    def say(tables: Tables, facts: Facts) -> str:
        known = tables[name][column].drop_nulls()
        n = f" n: {span(known)} {what}." if len(known) else ""
        return f"{about}{n} {interval.format(resamples=resamples(facts))}"

    return say


def plain(name: str, about: str) -> Caption:
    """Of what is drawn without intervals."""

    def say(tables: Tables, _facts: Facts) -> str:
        languages = [one for one in dict.fromkeys(tables[name]["language"]) if one != MEAN]
        return f"{about} n: {len(languages)} languages. Drawn without intervals."

    return say


def origin(facts: Facts) -> str:
    """Which model a table is about, with its revision, and the command that made it."""
    model = facts.get("model") or facts.get("manifest", {}).get("model")
    said = []
    if model:
        revision = f"revision {model['revision']}" if model.get("revision") else "no revision recorded"
        said.append(
            f"Model: {model.get('id') or 'not named'}, {revision}, SHA-256 over all parameters {str(model.get('checksum'))[:12]}."
        )
    if isinstance(facts.get("command"), list):
        said.append(f"Made by: lape {shlex.join(map(str, facts['command']))}")
    elif facts.get("command"):
        said.append(f"Made by: {facts['command']}")
    return " ".join(said)
