"""Tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from lape.neurons import LanguageNeurons

BARS = " ▁▂▃▄▅▆▇█"
_WIDEST = 40
"""Characters of a histogram; deeper models show several layers in one."""


def _table(title: str, first: str, *rest: str, caption: str | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        pad_edge=False,
        box=box.SIMPLE_HEAD,
    )
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def histogram(counts: list[int]) -> str:
    """One character per layer (or several layers, in a deep model), as high as they are full."""
    step = -(-len(counts) // _WIDEST)
    counts = [sum(counts[at : at + step]) for at in range(0, len(counts), step)]
    top = max(counts, default=0) or 1
    return "".join(BARS[0 if not count else max(1, round(8 * count / top))] for count in counts)


def neurons_table(neurons: LanguageNeurons, reliability: pl.DataFrame | None) -> Table:
    """Per language: how many neurons, in which layers, how reliable."""
    layers = neurons.space.layers
    title = f"Language neurons ({neurons.method}): {len(neurons.union):,} of {neurons.space}"
    table = _table(title, "", "neurons", "alone", "layers", "fullest", "stable", "5 %", "chance")
    table.columns[3].justify, table.columns[3].no_wrap = "left", True
    table.columns[3].header = f"layers {layers[0]}–{layers[-1]}" if layers else "layers"
    by_language = {row["language"]: row for row in reliability.iter_rows(named=True)} if reliability is not None else {}
    from lape.analyse.reliability import UNION

    for language in [*neurons, UNION]:
        found = neurons.union if language == UNION else neurons[language]
        counts = [len(found.by_layer().get(layer, ())) for layer in layers]
        fullest = str(layers[counts.index(max(counts))]) if any(counts) else ""
        only = "" if language == UNION else str(len(neurons.only(language)))
        row = by_language.get(language, {})
        table.add_row(
            language,
            str(len(found)),
            only,
            histogram(counts),
            fullest,
            *(_two(row.get(k)) for k in ("median", "p5", "chance")),
        )
    if by_language:
        table.caption = (
            "alone: neurons no other language shares. stable: median Jaccard of the sets found in two\n"
            "halves of the text, its 5th percentile over all halvings, and that of random sets.\n"
            "This is stability, not validity: it says that a set comes out again, not what it does."
        )
    return table


def _two(value: Any) -> str:
    return "" if value is None else f"{value:.2f}"


def overlap_table(neurons: LanguageNeurons) -> Table:
    """How many neurons each pair of languages shares."""
    table = _table("Shared neurons", "", *neurons)
    for a in neurons:
        table.add_row(a, *(str(len(neurons[a] & neurons[b])) for b in neurons))
    return table


def loss_matrix(table: pl.DataFrame, column: str = "delta_token", title: str | None = None) -> Table:
    """Language switched off (rows) × language evaluated (columns)."""
    languages = list(dict.fromkeys(table["language"]))
    shown = _table(
        title or "Change of loss, nats a token (row: neurons off, column: language evaluated)", "off", *languages
    )
    for off in dict.fromkeys(table["off"]):
        rows = {row["language"]: row for row in table.iter_rows(named=True) if row["off"] == off}
        cells = [Text(f"{rows[k][column]:.3f}", style="bold green" if k == off else "") for k in languages]
        shown.add_row(off, *cells)
    return shown


def own_table(table: pl.DataFrame) -> Table:
    """Each language's own change beside its controls."""
    names = (
        "neurons",
        "nats/token",
        "95 % interval",
        "nats/char",
        "nats/sentence",
        "perplexity",
        "random",
        "max",
        "matched",
        "max",
        "others",
    )
    shown = _table("A language's own neurons off, beside control neurons (nats a token)", "language", *names)
    for row in table.iter_rows(named=True):
        if row["off"] != row["language"]:
            continue
        others = [
            r["delta_token"]
            for r in table.iter_rows(named=True)
            if r["off"] == row["off"] and r["language"] != row["off"]
        ]
        interval = f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] is not None else "–"
        shown.add_row(
            row["language"],
            str(row["neurons"]),
            Text(f"{row['delta_token']:.3f}", style="bold green"),
            interval,
            f"{row['delta_character']:.3f}",
            f"{row['delta_sentence']:.2f}",
            f"{row['perplexity_base']:.1f} → {row['perplexity_off']:.1f}",
            *(_three(row[k]) for k in ("random_mean", "random_max", "matched_mean", "matched_max")),
            f"{sum(others) / len(others):.3f}" if others else "",
        )
    units = int(table["units"].min())  # type: ignore[arg-type]
    caption = "random: as many neurons per layer; matched: as many per layer and decile of energy; others: mean change of the other languages."
    if units < 20:
        caption += f"\nNo interval: {units} units of text, at least 20 are needed."
    shown.caption = caption
    return shown


def _three(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def verdict(table: pl.DataFrame) -> str:
    """In one or two sentences: for which languages the own change is the largest of its row and above every control draw."""
    yes: list[str] = []
    no: list[str] = []
    for off in dict.fromkeys(table["off"]):
        rows = [row for row in table.iter_rows(named=True) if row["off"] == off]
        own = next((row for row in rows if row["language"] == off), None)
        if own is None:
            continue
        largest = own["delta_sentence"] >= max(row["delta_sentence"] for row in rows)
        controls = [own[k] for k in ("random_max", "matched_max") if own[k] is not None]
        (yes if largest and all(own["delta_token"] > c for c in controls) and own["neurons"] else no).append(off)
    text = f"Own language hurt most (per sentence), and more than by any control draw: {', '.join(yes) or 'none'}."
    return text + (f" Not so: {', '.join(no)}." if no else "")
