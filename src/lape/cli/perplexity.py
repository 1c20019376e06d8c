"""`lape perplexity`: what switching each language off does to each language's loss."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import polars as pl
from rich.console import Group
from rich.text import Text

from lape.cli.common import beside, out, progress, provenance, say_passes, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, evaluation_texts, load_matching, neurons_of
from lape.cli.tables import between, number, titled
from lape.data.texts import listed
from lape.experiments.perplexity.run import PerplexityOptions, line_losses, summary
from lape.measure.bootstrap import FEWEST
from lape.model.identity import describe
from lape.store.draft import Draft

_PERPLEXITY = PerplexityOptions()


def perplexity(
    model: str,
    neurons: Path,
    *,
    text: Several | None = None,
    to: Out | None = None,
    languages: str | None = None,
    width: int | None = None,
    overwrite: Switch = False,
    options: Annotated[PerplexityOptions, FLAGS] = _PERPLEXITY,
    loading: Loading = LOADING,
) -> None:
    """Measure the change of loss: neurons off × language evaluated, with control neurons and intervals.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    neurons
        A run's folder, a file of neurons, or a published .pth.
    text
        TAG=PATH, once or more: text that was not recorded. Default: what was measured on before; for sample, the bundled texts.
    to
        The folder to write. Default: perplexity beside the neurons.
    languages
        For a .pth: its languages in order.
    width
        For a .pth: neurons in a layer.
    overwrite
        Replace an existing folder.
    """
    draft = Draft(to or beside(neurons, "perplexity"), overwrite)
    found = neurons_of(neurons, languages, width)
    texts = evaluation_texts(model, text, neurons, "perplexity", [*found])
    with progress() as report, draft.cells() as cells:
        loaded, tokenizer = load_matching(model, loading, report, neurons=found)
        described = describe(loaded, tokenizer)
        how: dict[str, Any] = {"folder": cells, "described": described, "planned": say_passes("neurons")}
        lines = line_losses(loaded, tokenizer, found, texts, options, **how, progress=report)
        table = summary(lines, found, options)
        record = provenance("perplexity", found, options=options, texts=listed(texts), **described)
        draft.write({"perplexity": table, "lines": lines}, run=record)
        draft.finish()
    show_losses(table)
    written(draft.target)
    if neurons.is_dir() and draft.target.parent == neurons:
        out.print(f"Next: lape report {quote(str(neurons))}", soft_wrap=True)


def show_losses(table: pl.DataFrame) -> None:
    """Print what switching each language off did."""
    out.print(loss_matrix(table))
    out.print(own_tables(table))
    out.print(verdict(table))


def loss_matrix(table: pl.DataFrame) -> Group:
    """Language switched off (rows) × language evaluated (columns), in nats per token."""
    languages = list(dict.fromkeys(table["language"]))
    cells = {(row["off"], row["language"]): row["delta_token"] for row in table.iter_rows(named=True)}
    rows = [
        [off, *(Text(f"{cells[off, k]:.3f}", style="bold green" if k == off else "") for k in languages)]
        for off in dict.fromkeys(table["off"])
    ]
    return titled(
        "Change of loss in nats per token (row: neurons off, column: language evaluated)", ["off", *languages], rows
    )


def own_tables(table: pl.DataFrame) -> Group:
    """Each language's own change, beside its controls and in other units."""
    own = table.filter(pl.col("off") == pl.col("language")).to_dicts()
    others = table.filter(pl.col("off") != pl.col("language")).group_by("off").agg(pl.col("delta_token").mean())
    mean_of_others = dict(others.iter_rows())
    intervals = any(row["low"] is not None for row in own)
    columns = ["", "size", "own", *(["95 % interval"] if intervals else []), "others", "random", "matched"]
    rows = [
        [
            row["off"],
            str(row["neurons"]),
            Text(f"{row['delta_token']:.3f}", style="bold green"),
            *([between(row["low"], row["high"], ".2f")] if intervals else []),
            number(mean_of_others.get(row["off"]), 3),
            *(
                f"{number(row[f'{k}_mean'], 3)} ({number(row[f'{k}_max'], 3)})" if row[f"{k}_mean"] is not None else ""
                for k in ("random", "matched")
            ),
        ]
        for row in own
    ]
    caption = (
        "own: the language's own loss (the on-target effect). others: mean change of the other languages (off-target). random: "
        "as many random neurons in each layer; matched: as many in each layer and decile of energy; both: the own language's change, "
        "mean (largest) of the draws."
    )
    caption += _without_interval(own)
    caption += _without_controls(own)
    units = [
        [
            row["off"],
            f"{row['delta_character']:.3f}",
            f"{row['delta_sentence']:.2f}",
            f"{row['perplexity_base']:.1f}",
            f"{row['perplexity_off']:.1f}",
            f"{row['percent']:+.0f} %",
        ]
        for row in own
    ]
    names = ["", "per character", "per sentence", "perplexity", "off", "change"]
    return Group(
        titled("A language's own neurons off, beside control neurons (nats per token)", columns, rows, caption),
        Text(),
        titled("The same in nats per character and sentence, and in perplexity", names, units),
    )


def _without_interval(own: list[dict[str, Any]]) -> str:
    """Why some languages have no interval."""
    short = [f"{row['off']} has {row['units']}" for row in own if row["low"] is None]
    if not short:
        return ""
    return (
        f"\nNo interval where a text has under {FEWEST} documents (or blocks of lines): {', '.join(short)}. "
        "Measure more (longer texts, a higher --tokens), or give --document line where each line stands for itself."
    )


def _without_controls(own: list[dict[str, Any]]) -> str:
    """Why some languages have no control, or one alone."""
    without = [row for row in own if row["random_mean"] is None or row["matched_mean"] is None]
    reasons = {
        "it has no neurons": [row["off"] for row in without if not row["neurons"]],
        "none was drawn, or too few other neurons are left": [row["off"] for row in without if row["neurons"]],
    }
    return "".join(f"\nNo control for {', '.join(some)}: {why}." for why, some in reasons.items() if some)


def verdict(table: pl.DataFrame) -> str:
    """For which languages the own loss rises, the most of its row (per sentence), and above every control draw."""
    groups: dict[str, list[str]] = {"yes": [], "no": [], "unknown": []}
    for off in dict.fromkeys(table["off"]):
        rows = [row for row in table.iter_rows(named=True) if row["off"] == off]
        own = next((row for row in rows if row["language"] == off), None)
        if own is not None:
            groups[_judge(own, rows)].append(off)
    text = (
        "Switching a language's own neurons off raises its loss more than any other language's (per sentence), and more than every control draw: "
        f"{', '.join(groups['yes']) or 'none'}."
    )
    if groups["no"]:
        text += f" Not so: {', '.join(groups['no'])}."
    if groups["unknown"]:
        text += f" Not known, for lack of controls or of other languages: {', '.join(groups['unknown'])}."
    return text


def _judge(own: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    controls = [own["random_max"], own["matched_max"]]
    if own["delta_token"] <= 0 or own["delta_sentence"] < max(row["delta_sentence"] for row in rows):
        return "no"
    if any(c is not None and own["delta_token"] <= c for c in controls):
        return "no"
    return "unknown" if None in controls or len(rows) < 2 else "yes"
