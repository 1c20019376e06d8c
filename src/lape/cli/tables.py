"""Tables for the terminal, 80 columns wide where seven languages fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from lape.experiments.section import Rows, Section
    from lape.experiments.table import Column
    from lape.values.neurons import LanguageNeurons

_BARS = " ▁▂▃▄▅▆▇█"
_MOST = 30
"""Rows of a table that are printed."""
_WIDEST = 40
"""Characters of a histogram; deeper models show several layers in one."""


def titled(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], caption: str = "") -> Group:
    """A table under its title and above its caption, which do not wrap with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    parts: list[Any] = [Text(title, style="bold"), table]
    return Group(*parts, Text(caption, style="italic")) if caption else Group(*parts)


def section_tables(section: Section) -> Group:
    """What a report says of an experiment, as far as a terminal shows it: findings, the first reading of heat maps, and tables."""
    from lape.experiments import section as blocks

    parts: list[Any] = [Text(f"{section.title}: {section.about}"), *(Text(f"• {one}") for one in section.findings)]
    for block in section.blocks:
        if isinstance(block, blocks.Grid):
            view = next(iter(block.views.values()))
            cells = [["" if x is None else f"{x:.{view.digits}f}" for x in line] for line in view.values]
            rows = [[name, *line] for name, line in zip(block.rows, cells, strict=True)]
            parts += [Text(), titled(view.title, [block.corner, *block.columns], rows)]
        elif isinstance(block, blocks.Rows):
            parts += [Text(), rows_table(block)]
    return Group(*parts)


def rows_table(block: Rows) -> Group:
    """A table with its intervals in brackets: its first rows, and the columns for which the terminal has room; the caption names the rest."""
    from lape.cli.common import out

    columns, frame = block.table.columns, block.frame
    cells = [
        [_value(row, column, block.table.digits) for column in columns]
        for row in frame.head(_MOST).iter_rows(named=True)
    ]
    widths = [
        max(map(len, (column.label, *each))) + 2 for column, each in zip(columns, zip(*cells, strict=True), strict=True)
    ]
    shown = sum(total <= out.width for total in accumulate(widths))
    caption = block.table.about
    if len(frame) > _MOST:
        caption += f" The first {_MOST} of {len(frame):,} rows."
    if shown < len(columns):
        caption += f" Beside these: {', '.join(column.label for column in columns[shown:])}."
    names = [column.label for column in columns[:shown]]
    return titled(block.name.replace("_", " "), names, [line[:shown] for line in cells], caption)


def _value(row: Mapping[str, Any], column: Column, digits: int) -> str:
    value = row[column.name]
    if not isinstance(value, float):
        return "" if value is None else f"{value:,}" if column.numeric else str(value)[:_WIDEST]
    ends = [row[end] for end in (column.low, column.high) if end]
    known = ends and None not in ends
    return f"{value:.{digits}f}" + (f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})" if known else "")


def histogram(counts: list[int], wholes: list[int] | None = None) -> str:
    """One character per layer (or several layers, in a deep model), as high as they are full, or as their shares of `wholes`.

    As shares, a dot stands for none of some, and a blank for none of none.
    """
    counts = _pooled(counts)
    if wholes is None:
        return "".join(_bar(count, max(counts) or 1) for count in counts)
    return "".join(
        "·" if whole and not count else _bar(count, whole) for count, whole in zip(counts, _pooled(wholes), strict=True)
    )


def _pooled(counts: list[int]) -> list[int]:
    step = max(1, -(-len(counts) // _WIDEST))
    return [sum(counts[at : at + step]) for at in range(0, len(counts), step)]


def _bar(count: int, top: int) -> str:
    return _BARS[0 if not count else max(1, round(8 * count / top))]


def neurons_table(neurons: LanguageNeurons, reliability: pl.DataFrame | None) -> Group:
    """Per language: how many neurons, in which layers, how reliable."""
    from lape.detect.stability import UNION

    layers = neurons.space.layers
    measured = {row["language"]: row for row in reliability.iter_rows(named=True)} if reliability is not None else {}
    rows = []
    for language in [*neurons, UNION]:
        found = neurons.union if language == UNION else neurons[language]
        by_layer = found.by_layer()
        counts = [len(by_layer.get(layer, ())) for layer in layers]
        fullest = str(layers[counts.index(max(counts))]) if any(counts) else ""
        alone = "" if language == UNION else str(len(neurons.only(language)))
        stable = [_number(measured.get(language, {}).get(k), 2) for k in ("median", "p5", "chance")]
        rows.append([language, str(len(found)), alone, histogram(counts), fullest, *(stable if measured else [])])
    columns = ["", "neurons", "alone", f"layers {layers[0]}–{layers[-1]}", "fullest"]
    caption = "alone: neurons that no other language shares."
    if measured:
        columns += ["stable", "5 %", "chance"]
        caption += (
            " stable: median Jaccard of the "
            "sets found in two halves of the text, its 5th percentile over all halvings, and "
            "that of random sets; none under 20 neurons. This is stability, not validity: it "
            "says that a set comes out again, not what it does."
        )
    title = f"Language neurons ({neurons.method}): {len(neurons.union):,} of {neurons.space}"
    return titled(title, columns, rows, caption)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def overlap_table(neurons: LanguageNeurons) -> Group:
    """How many neurons each pair of languages shares."""
    rows = [[a, *(str(len(neurons[a] & neurons[b])) for b in neurons)] for a in neurons]
    return titled("Shared neurons", ["", *neurons], rows)


def experts_table(table: pl.DataFrame) -> Group:
    """Per language, the experts that it uses most in comparison with the others."""
    rows = []
    for language in table["language"].unique(maintain_order=True):
        mine = table.filter((_col("language") == language) & _col("ratio").is_not_null())
        for row in mine.sort("ratio", descending=True).head(5).iter_rows(named=True):
            spread = "" if row["lowest"] is None else f"{row['lowest']:.1%}–{row['highest']:.1%}"
            apart = {True: "yes", False: "no", None: ""}[row["apart"]]
            place = f"{row['layer']}.{row['expert']}"
            rows.append(
                [language, place, f"{row['share']:.1%}", spread, f"{row['others']:.1%}", f"{row['ratio']:.2f}", apart]
            )
    columns = ["", "layer.expert", "tokens sent", "folds", "others", "ratio", "apart"]
    caption = (
        "tokens sent: share of the language's tokens that the router sends to the expert; folds: the lowest and highest of that share "
        "over parts of the text; others: its mean over the other languages; apart: whether no other language's folds reach into that range."
    )
    return titled("Experts that a language uses most, beside the others", columns, rows, caption)


def compare_table(table: pl.DataFrame) -> Group:
    """Per language: the sizes of two sets, and how much they overlap, in all and layer by layer."""
    whole = table.filter(_col("layer").is_null())
    layers = table["layer"].drop_nulls().unique().sort()
    rows = []
    for row in whole.iter_rows(named=True):
        parts = table.filter((_col("language") == row["language"]) & _col("layer").is_not_null())
        line = ""
        if row["shared"] is not None:
            line = histogram(parts["shared"].to_list(), (parts["a"] + parts["b"] - parts["shared"]).to_list())
        sizes = ["–" if row[k] is None else str(row[k]) for k in ("a", "b")]
        rows.append([row["language"], *sizes, *(_number(row[k], 3) for k in ("jaccard", "chance")), line])
    columns = ["", "A", "B", "Jaccard", "chance", f"layers {layers[0]}–{layers[-1]}"]
    caption = (
        "Jaccard: shared neurons as a share of those in either; chance: that of random sets with as many neurons in each "
        "layer. Layers: the Jaccard of each, full height is 1, · none shared, blank no neurons."
    )
    return titled("Two sets of neurons", columns, rows, caption)


def loss_matrix(table: pl.DataFrame) -> Group:
    """Language switched off (rows) × language evaluated (columns), in nats a token."""
    languages = list(dict.fromkeys(table["language"]))
    cells = {(row["off"], row["language"]): row["delta_token"] for row in table.iter_rows(named=True)}
    rows = [
        [off, *(Text(f"{cells[off, k]:.3f}", style="bold green" if k == off else "") for k in languages)]
        for off in dict.fromkeys(table["off"])
    ]
    return titled(
        "Change of loss in nats a token (row: neurons off, column: language evaluated)", ["off", *languages], rows
    )


def own_tables(table: pl.DataFrame) -> Group:
    """Each language's own change, beside its controls and in other units."""
    own = [row for row in table.iter_rows(named=True) if row["off"] == row["language"]]
    intervals = any(row["low"] is not None for row in own)
    columns = [
        "",
        "size",
        "own",
        *(["95 % interval"] if intervals else []),
        "others",
        "random",
        "matched",
    ]
    rows = [
        [
            row["off"],
            str(row["neurons"]),
            Text(f"{row['delta_token']:.3f}", style="bold green"),
            *([_interval(row)] if intervals else []),
            _number(_others(table, row["off"]), 3),
            *(
                f"{_number(row[f'{k}_mean'], 3)} ({_number(row[f'{k}_max'], 3)})"
                if row[f"{k}_mean"] is not None
                else ""
                for k in ("random", "matched")
            ),
        ]
        for row in own
    ]
    caption = (
        "own: the language's own loss. others: mean change of the other languages. random: "
        "mean (largest) of the draws of as many neurons per layer; matched: as many per layer "
        "and decile of energy."
    )
    if not intervals and own:
        caption += f"\nNo interval: the text has {min(row['units'] for row in own)} documents (or blocks of lines); at least 20 are needed."
    without = [row["off"] for row in own if row["random_mean"] is None or row["matched_mean"] is None]
    if without:
        caption += f"\nNo control for {', '.join(without)}: none was drawn, or too few other neurons are left."
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
        titled("A language's own neurons off, beside control neurons (nats a token)", columns, rows, caption),
        Text(),
        titled("The same in nats per character and sentence, and in perplexity", names, units),
    )


def _others(table: pl.DataFrame, off: str) -> float | None:
    changes = [
        row["delta_token"] for row in table.iter_rows(named=True) if row["off"] == off and row["language"] != off
    ]
    return sum(changes) / len(changes) if changes else None


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f"{row['low']:.2f} … {row['high']:.2f}"


def verdict(table: pl.DataFrame) -> str:
    """For which languages the own loss rises, the most of its row (per sentence), and above every control draw."""
    groups: dict[str, list[str]] = {"yes": [], "no": [], "unknown": []}
    for off in dict.fromkeys(table["off"]):
        rows = [row for row in table.iter_rows(named=True) if row["off"] == off]
        own = next((row for row in rows if row["language"] == off), None)
        if own is not None:
            groups[_judge(own, rows)].append(off)
    text = f"Own language hurt most (per sentence), and more than by any control draw: {', '.join(groups['yes']) or 'none'}."
    if groups["no"]:
        text += f" Not so: {', '.join(groups['no'])}."
    if groups["unknown"]:
        text += f" Not known, for want of controls or of other languages: {', '.join(groups['unknown'])}."
    return text


def _judge(own: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    controls = [own["random_max"], own["matched_max"]]
    if own["delta_token"] <= 0 or own["delta_sentence"] < max(row["delta_sentence"] for row in rows):
        return "no"
    if any(c is not None and own["delta_token"] <= c for c in controls):
        return "no"
    return "unknown" if None in controls or len(rows) < 2 else "yes"


def forcing_tables(found: Any) -> Group:
    """Every family on the reporting questions, the settings that were tried, and what the edits cost."""
    report = found.table.filter((_col("source") == "all") & (_col("target") == "all") & (_col("split") == "report"))
    rows = [
        [
            row["family"],
            *(_share(row, name) for name in ("in_language", "fluent", "on_topic", "good")),
            _over(row, "in_language_over_ceiling"),
            _over(row, "good_over_ceiling"),
        ]
        for row in report.sort("good_over_ceiling", descending=True, nulls_last=True).iter_rows(named=True)
    ]
    caption = (
        "Shares of answers; fluent: of those in the language; topic: of those that are fluent too. ÷ ceiling: share over that of answers to the question "
        "asked in the target language, averaged by target, with the 95 % interval over questions."
    )
    names = ["", "in lang.", "fluent", "topic", "good", "in lang. ÷ ceiling", "good ÷ ceiling"]
    parts: list[Any] = [
        titled("Reporting questions, setting chosen on the others", names, rows, caption),
        Text(),
        _tried(found.table),
    ]
    worst = _worst(found.table)
    if worst:
        parts += [Text(), Text(worst)]
    if len(found.costs):
        parts += [Text(), _costs(found.costs)]
    return Group(*parts)


def _tried(table: pl.DataFrame) -> Group:
    development = table.filter((_col("source") == "all") & (_col("target") == "all") & (_col("split") == "development"))
    rows = [
        [
            row["family"],
            Text(("• " if row["chosen"] else "  ") + row["setting"], style="bold" if row["chosen"] else ""),
            _number(row["in_language_over_ceiling"], 2),
            _number(row["good_over_ceiling"], 2),
        ]
        for row in development.iter_rows(named=True)
    ]
    return titled(
        "Development questions: what was tried (• chosen)",
        ["", "setting", "in lang. ÷ ceiling", "good ÷ ceiling"],
        rows,
    )


def _worst(table: pl.DataFrame) -> str:
    pairs = table.filter((_col("family") == "neurons") & (_col("split") == "report") & (_col("source") != "all"))
    if not len(pairs) or pairs["good_over_ceiling"].is_null().all():
        return ""
    row = pairs.sort("good_over_ceiling", nulls_last=True).row(0, named=True)
    return f"Worst pair of neurons: {row['source']} → {row['target']}, good answers {row['good_over_ceiling']:.2f} of the ceiling's."


def _costs(costs: pl.DataFrame) -> Group:
    roles = ("source", "target", "third")
    mean = costs.group_by(["family", "role"], maintain_order=True).agg(_col("delta_token").mean())
    cells = {(row["family"], row["role"]): row["delta_token"] for row in mean.iter_rows(named=True)}
    rows = [
        [family, *(_number(cells.get((family, role)), 3) for role in roles)]
        for family in dict.fromkeys(costs["family"])
    ]
    caption = (
        "Change of loss in nats a token on text of the pair's source, target and the other languages, mean over pairs."
    )
    return titled("What the edits cost on text, acting on every token", ["", *roles], rows, caption)


def task_table(table: pl.DataFrame) -> Group:
    """Tasks under each condition, beside their difference to the unedited model."""
    rows = [
        [
            row["task"],
            row["metric"],
            row["condition"],
            row["language"],
            _number(row["value"], 3),
            _number(row["difference"], 3),
            "" if row["low"] is None else f"{row['low']:.3f} … {row['high']:.3f}",
        ]
        for row in table.sort("task", "metric", maintain_order=True).iter_rows(named=True)
    ]
    caption = (
        "off: the language's neurons; control: as many others per layer and decile of energy. change: to the unedited model, with its "
        "paired 95 % interval over documents, where there are 20 and the metric is their mean."
    )
    return titled("Tasks", ["task", "metric", "", "neurons of", "value", "change", "95 % interval"], rows, caption)


def _share(row: dict[str, Any], name: str) -> str:
    return "" if row[name] is None else f"{row[name]:.1%}"


def _over(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f}" + ("" if low is None else f" ({low:.2f}–{high:.2f})")


def _col(name: str) -> Any:
    """A column in a polars expression, polars being imported late."""
    import polars

    return polars.col(name)
