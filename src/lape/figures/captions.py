"""What a figure's caption says: what is drawn, of how many, and how its intervals were made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import polars as pl

from lape.detect.stability import UNION
from lape.figures.held import Record, resamples
from lape.figures.style import Tables
from lape.measure.bootstrap import FEWEST
from lape.measure.intervals import MEAN

Caption: TypeAlias = Callable[[Tables, Record], str]


def _span(values: pl.Series) -> str:
    """The smallest and the largest of some whole numbers."""
    low, high = int(values.min()), int(values.max())  # type: ignore[arg-type]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _sizes(tables: Tables) -> str:
    sums = tables["histogram"].group_by("language", maintain_order=True).agg(pl.col("neurons").sum())
    return ", ".join(f"{language} {count:,}" for language, count in sums.iter_rows())


def _chosen(record: Record) -> str:
    """How the sets were chosen: the options that are one number or word."""
    return "".join(
        f" Chosen by {method}: {', '.join(_option(name, value) for name, value in options.items() if _plain(value))}."
        for method, options in (record.get("chosen") or {}).items()
    )


def _plain(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _option(name: str, value: Any) -> str:
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def layers(tables: Tables, record: Record) -> str:
    """Of the bars."""
    count = tables["histogram"]["layer"].n_unique()
    return (
        f"Language neurons in each of {count} layers, all languages on one scale; the number above a bar is that of the fullest layer, "
        f"the one at the side the language's sum. n (neurons): {_sizes(tables)}. Counts, so without intervals.{_chosen(record)}"
    )


def overlap(tables: Tables, record: Record) -> str:
    """Of the two triangles."""
    return (
        "How far languages share neurons: above the diagonal how many, below it the Jaccard (shared as a share of those in either), which "
        f"also gives the colour; on it the language's own number. n (neurons): {_sizes(tables)}. Counts, so without intervals.{_chosen(record)}"
    )


def _units(table: pl.DataFrame, record: Record) -> str:
    if table["low"].null_count():
        return f"No intervals where there are under {FEWEST} units of text (documents, sentences or blocks of lines): here {_span(table['units'])}."
    return (
        f"95 % percentile bootstrap over {_span(table['units'])} units of text (documents, sentences or blocks of lines), resampled jointly over languages "
        f"and conditions{resamples(record)}."
    )


def perplexity(tables: Tables, record: Record) -> str:
    """Of the matrix."""
    table = tables["perplexity"]
    bold = "" if table["low"].null_count() == len(table) else " Bold: the 95 % interval does not contain 0."
    drawn = any(table[f"{kind}_mean"].count() for kind in ("random", "matched"))
    beside = (
        " Right: means over draws of control neurons on the row's own language, as many per layer (random) and as many per layer and decile "
        "of energy (matched); no interval is made for controls."
        if drawn
        else " No control was drawn."
    )
    return (
        "Change of loss in nats a token with a language's neurons switched off (row), on text of each language (column); colours from 0 on, by the "
        f"root.{bold}{beside} n: {_span(table['tokens'])} tokens a language. {_units(table, record)}"
    )


def own(tables: Tables, record: Record) -> str:
    """Of own effects beside controls."""
    table = tables["perplexity"].filter(pl.col("off") == pl.col("language"))
    beside = table.filter(pl.col("random_mean").is_not_null() | pl.col("matched_mean").is_not_null())
    without = [row for row in table["off"] if row not in set(beside["off"])]
    none = (
        f" No control for {', '.join(without)}: none was drawn, or too few other neurons are left." if without else ""
    )
    interval = "the line its 95 % interval" if not table["low"].null_count() else "no interval"
    return (
        f"Change of a language's own loss, in nats a token, with its own neurons off (dot; {interval}) and with control neurons off (mark: mean of the "
        "draws, line: up to the largest draw): as many per layer (random), as many per layer and decile of energy (matched); controls have no "
        f"interval.{none} In brackets: neurons off. n: {_span(table['tokens'])} tokens a language. {_units(table, record)}"
    )


def reliability(tables: Tables, _record: Record) -> str:
    """Of the halves of the text."""
    table = tables["reliability"]
    sizes = ", ".join(
        f"{'all' if name == UNION else name} {count:,}"
        for name, count in table.select("language", "neurons").iter_rows()
    )
    return (
        f"How alike the sets found in two halves of the text are: median Jaccard over {_span(table['halvings'])} halvings (dot), down to its 5th "
        "percentile over them (line; a spread, no confidence interval), and the Jaccard expected of random sets with as many neurons in each "
        f"layer (bar). None for sets under 20 neurons. This is stability, not validity. n (neurons): {sizes}."
    )


def forcing(tables: Tables, record: Record) -> str:
    """Of families of methods."""
    table = tables["forcing"].filter(source="all", target="all", split="report")
    return (
        "Ways of forcing a language: share of answers in the target language, and of good ones (in it, fluent and on topic, by our definitions: a "
        "proxy), over the same share when the question is asked in the target language, averaged by target. Settings were chosen on other questions. "
        f"n: {_span(table['questions'])} questions. 95 % percentile bootstrap over questions, resampled jointly over everything"
        f"{resamples(record)}; none under {FEWEST} questions."
    )


def steering(tables: Tables, record: Record) -> str:
    """Of neurons beside other families."""
    report = tables["forcing"].filter(split="report") if "forcing" in tables else pl.DataFrame()
    n = f" n: {_span(report['questions'])} questions." if len(report) else ""
    return (
        "Share of good answers (a proxy) forced by neurons less that of each other family, both over the share when asked in the target language, averaged "
        f"by target.{n} 95 % paired percentile bootstrap over questions{resamples(record)}."
    )


def costs(tables: Tables, _record: Record) -> str:
    """Of what edits cost."""
    table = tables["costs"]
    return (
        "What the edits cost where they act on every token of a text: change of loss in nats a token on text of the pair's source, of its target "
        f"and of the other languages, mean over pairs and languages. n: {len(table):,} measurements of {_span(table['tokens'])} tokens. "
        "Means, drawn without intervals."
    )


def sentences(name: str, about: str) -> Caption:
    """Of what a study measures on parallel sentences."""

    def say(tables: Tables, record: Record) -> str:
        table = tables[name]
        known = "units" in table.columns and table["units"].count()
        count: Any = table["units"].max() if known else (record.get("evaluated") or {}).get("lines")
        units = f"{count:,} " if count else ""
        return f"{about} 95 % percentile bootstrap over {units}parallel sentences, resampled jointly over languages and conditions{resamples(record)}."

    return say


def counted(name: str, about: str, column: str, what: str, interval: str) -> Caption:
    """Of a table in which a column says of how many each row is."""

    def say(tables: Tables, record: Record) -> str:
        known = tables[name][column].drop_nulls()
        n = f" n: {_span(known)} {what}." if len(known) else ""
        return f"{about}{n} {interval.format(resamples=resamples(record))}"

    return say


def languages(tables: Tables, name: str) -> Sequence[Any]:
    """The languages that a table has rows for."""
    return [one for one in dict.fromkeys(tables[name]["language"]) if one != MEAN]


def plain(name: str, about: str) -> Caption:
    """Of what is drawn without intervals."""

    def say(tables: Tables, _record: Record) -> str:
        return f"{about} n: {len(languages(tables, name))} languages. Drawn without intervals."

    return say
