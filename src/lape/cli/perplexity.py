"""`lape perplexity`: what switching each language off does to each language's loss."""

from __future__ import annotations

from collections.abc import Collection
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
from lape.measure.controlled import controlled
from lape.measure.controls import LIKE, MATCHED, RANDOM
from lape.model.identity import describe
from lape.store.draft import Draft
from lape.values.neurons import LanguageNeurons

_PERPLEXITY = PerplexityOptions()
_SHOWN = frozenset({"random", "matched"})
"""Kinds of control that have a column."""


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
        table, beside_controls = summaries(lines, found, options)
        record = provenance("perplexity", found, options=options, texts=listed(texts), **described)
        draft.write({"perplexity": table, "controlled": beside_controls, "lines": lines}, run=record)
        draft.finish()
    show_losses(table, beside_controls, options.controls)
    written(draft.target)
    if neurons.is_dir() and draft.target.parent == neurons:
        out.print(f"Next: lape report {quote(str(neurons))}", soft_wrap=True)


def summaries(
    lines: pl.DataFrame, neurons: LanguageNeurons, options: PerplexityOptions
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The matrix of losses, and each evaluated language beside its controls."""
    evaluated = [language for language in neurons if language in set(lines["language"])]
    beside = controlled(lines, evaluated, resamples=options.resamples, seed=options.seed)
    return summary(lines, neurons, options), beside


def show_losses(table: pl.DataFrame, beside: pl.DataFrame, controls: Collection[str] = _SHOWN) -> None:
    """Print what switching each language off did, and what its controls did; `controls`: the kinds that were asked for."""
    out.print(loss_matrix(table))
    out.print(own_tables(table, beside, controls))
    out.print(verdict(beside))


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


def own_tables(table: pl.DataFrame, beside: pl.DataFrame, controls: Collection[str] = _SHOWN) -> Group:
    """Each language's own change, beside its controls, and in other units."""
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
    draws = max(beside["draws"].to_list(), default=0)
    caption = (
        "own: the language's own loss (the on-target effect). others: mean change of the other languages (off-target). random: "
        "as many random neurons in each layer; matched: as many in each layer, those nearest in written energy; both: the own language's change, "
        f"mean (largest) of {draws} draws."
    )
    caption += _without_interval(own)
    caption += _without_controls(own, _SHOWN & {*controls})
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
        more_table(beside),
        Text(),
        titled("The language's own change in nats per character and sentence, and in perplexity", names, units),
    )


def more_table(beside: pl.DataFrame) -> Group:
    """How much more a set does in its own language than elsewhere, beside each kind of control that is matched in an energy."""
    drawn = beside.filter(pl.col("control") != RANDOM.name).drop_nulls("energy_ratio")
    intervals = drawn["more_low"].count() > 0
    rows = [
        [
            row["language"],
            row["control"],
            number(row["energy_ratio"], 2),
            number(row["own_more"], 2),
            number(row["control_more"], 2),
            number(row["more"], 2),
            *([between(row["more_low"], row["more_high"], ".2f")] if intervals else []),
        ]
        for row in drawn.iter_rows(named=True)
    ]
    names = ["", "control", "energy", "own set", "control's", "difference", *(["95 % interval"] if intervals else [])]
    caption = (
        "The change of the language's own loss less the mean change of the others': of its set, and of control neurons. energy: the set's over its "
        "control's."
    )
    low, high = LIKE
    unlike = [row["language"] for row in drawn.iter_rows(named=True) if row["unlike"]]
    if unlike:
        caption += (
            f"\nNot within {low:g} and {high:g}, the nearest neurons of these layers having too little energy or too much: "
            f"{', '.join(dict.fromkeys(unlike))}. "
            "There the control is another than the set."
        )
    return titled("More in the language itself than elsewhere (nats per sentence)", names, rows, caption, keys=2)


def _without_interval(own: list[dict[str, Any]]) -> str:
    """Why some languages have no interval."""
    short = [f"{row['off']} has {row['units']}" for row in own if row["low"] is None]
    if not short:
        return ""
    return (
        f"\nNo interval where a text has under {FEWEST} documents (or blocks of lines): {', '.join(short)}. "
        "Measure more (longer texts, a higher --tokens), or give --document line where each line stands for itself."
    )


def _without_controls(own: list[dict[str, Any]], controls: Collection[str]) -> str:
    """Why some languages have no control, or one alone."""
    without = [row for row in own if any(row[f"{kind}_mean"] is None for kind in controls)]
    reasons = {
        "it has no neurons": [row["off"] for row in without if not row["neurons"]],
        "none was drawn, or too few other neurons are left": [row["off"] for row in without if row["neurons"]],
    }
    return "".join(f"\nNo control for {', '.join(some)}: {why}." for why, some in reasons.items() if some)


def verdict(beside: pl.DataFrame) -> str:
    """In which languages the set does more than its matched control: on its own language, and there more than elsewhere."""
    matched = beside.filter(control=MATCHED.name)
    return (
        "Switching a language's own neurons off raises its loss more than matched neurons do (the whole 95 % interval above 0): "
        f"{_judged(matched, 'difference')} And so by more than it raises the others' loss (per sentence): {_judged(matched, 'more')}"
    )


_VERDICTS = {
    "weaker": "Against weaker controls alone",
    "not shown": "Not shown",
    "unknown": "Not known, for lack of controls or of other languages",
    "no interval": f"Not known, for lack of an interval (under {FEWEST} sentences or documents, or one draw of control neurons: give longer texts, "
    "a higher --tokens, and --draws and --elsewhere of 3 or more)",
}


def _judged(matched: pl.DataFrame, value: str) -> str:
    """The languages in which a value is above 0, then the others by what is known of them."""
    groups: dict[str, list[str]] = {}
    for row in matched.iter_rows(named=True):
        groups.setdefault(_judge(row, value), []).append(row["language"])
    holds = ", ".join(groups.get("", [])) or "none"
    return " ".join(
        [f"{holds}.", *(f"{said}: {', '.join(groups[name])}." for name, said in _VERDICTS.items() if name in groups)]
    )


def _judge(row: dict[str, Any], value: str) -> str:
    """Nothing where it is so, or one of `_VERDICTS`."""
    if row[value] is None:
        return "unknown"
    low = row[f"{value}_low"]
    if low is None:
        return "no interval"
    if low <= 0:
        return "not shown"
    return "weaker" if row["energy_ratio"] is not None and row["energy_ratio"] > LIKE[1] else ""
