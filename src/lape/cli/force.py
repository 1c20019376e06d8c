"""`lape force`: which way makes a model answer in another language, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from rich.console import Group
from rich.text import Text

from lape.cli.common import beside, out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, paths_of, run_of, texts_of
from lape.cli.tables import number, titled
from lape.data import samples
from lape.data.texts import documents, listed
from lape.detect.identify import identify
from lape.errors import OptionError, TextError
from lape.experiments.forcing.run import ForcingOptions, forcing
from lape.measure.answer_fluency import FEWEST
from lape.measure.answers import DEFINITIONS
from lape.measure.questions import besides, checked_questions
from lape.measure.result import Result
from lape.model.identity import describe
from lape.store.draft import Draft
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

_FORCING = ForcingOptions()
FILES = {"forced_answers": "answers", "forcing_differences": "differences", "forcing_transfer": "transfer"}
"""Table -> its file in the folder, where that is not its name."""


def force(
    model: str,
    *,
    run: Path | None = None,
    to: Out | None = None,
    questions: Several | None = None,
    development: int = 24,
    native: Several | None = None,
    text: Several | None = None,
    evaluation: Several | None = None,
    overwrite: Switch = False,
    options: Annotated[ForcingOptions, FLAGS] = _FORCING,
    loading: Loading = LOADING,
) -> None:
    """Ask questions in every language and force the answers into others, by each family of methods, with controls.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample; or a run's folder alone, which knows its model.
    run
        A run's folder, with statistics. Default for sample: the demo's.
    to
        The folder to write. Default: forcing in the run's folder. A run that was killed goes on when the same command is given again.
    questions
        TAG=PATH, once or more: a file of questions, one per line, line i asking the same in every language. Default: the bundled ones.
    development
        How many of them, the first ones, choose the settings; the rest report.
    native
        TAG=PATH: other questions, one per line, whose unedited answers in their own language bound what is fluent; 100 are wanted. Default: those
        that choose the settings; where questions are the bundled ones, all bundled ones but those that report.
    text
        TAG=PATH: text from which the vocabulary mask takes its tokens. Default: the bundled text that the demo records.
    evaluation
        TAG=PATH: other text, parallel line by line, that measures costs and the identifiers. Default: the bundled text that the demo evaluates.
    overwrite
        Replace an existing folder.
    """
    folder = run_of(model, run)
    draft = Draft(to or beside(folder, "forcing"), overwrite)
    stats = ActivationStats.load(folder)
    asked = _questions(questions, stats.languages)
    others = _asked(native, "--native") if native else None
    first, rest = _split(asked, development, others)
    if not questions and not native:
        bundled = samples.questions("native")
        others = besides({language: bundled[language] for language in asked}, rest)
    words = _texts("--text", text, "record", asked)
    judged = _texts("--evaluation", evaluation, "evaluate", asked)
    saved = (folder / "neurons.safetensors").is_file()
    neurons = LanguageNeurons.load(folder) if saved else identify(stats, reliability=False)
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, statistics=stats)
        chosen = {"options": options, "questions": asked, "development": development, "native": others}
        use: dict[str, Any] = {"texts": words, "evaluation": judged}
        read = {**{name: listed(one) for name, one in use.items()}, "statistics": stats.manifest.get("corpus", {})}
        record = provenance("force", neurons, stats, **chosen, **read, **describe(loaded, tokenizer))
        how: dict[str, Any] = {"native": others, "neurons": neurons, "folder": draft.folder, "progress": report}
        found = forcing(loaded, tokenizer, stats, first, rest, options, **use, **how)
    tables = {FILES.get(name, name): table for name, table in found.items()}
    draft.write(tables, run=record, forcing=_published(found, record))
    draft.finish()
    out.print(forcing_tables(found))
    written(draft.target, found.notes)


def _published(found: Result, record: dict[str, Any]) -> dict[str, Any]:
    """All records with what they mean, as one JSON."""
    return {
        **{name: record[name] for name in ("command", "versions", "model", "options", "made_from")},
        "definitions": DEFINITIONS,
        "notes": list(found.notes),
        "records": _rounded(found["forcing"]),
        "differences": _rounded(found["forcing_differences"]),
        "transfer": _rounded(found["forcing_transfer"]),
        **{name: _rounded(found[name]) for name in ("costs", "identification")},
    }


def _rounded(frame: Any) -> list[dict[str, Any]]:
    return [{name: _short(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def _short(value: Any) -> Any:
    """With 4 digits after the point."""
    if isinstance(value, list):
        return [_short(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def _questions(flags: Sequence[str] | None, languages: Sequence[str]) -> dict[str, list[str]]:
    if not flags:
        bundled = samples.questions("all")
        known = {language: asked for language, asked in bundled.items() if language in languages}
        if len(known) < 2:
            raise TextError(
                f"The bundled questions are in {', '.join(bundled)} and the statistics are of {', '.join(languages)}: two languages in common are "
                "needed. Give your own questions: --questions TAG=PATH."
            )
        return known
    return _asked(flags, "--questions")


def _asked(flags: Sequence[str], option: str) -> dict[str, list[str]]:
    files = paths_of(flags, option).items()
    return checked_questions({k: ["".join(pieces) for pieces in documents(v, rule="line")] for k, v in files})


def _split(
    asked: Mapping[str, list[str]], development: int, native: Mapping[str, list[str]] | None
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    count = min(map(len, asked.values()))
    fewest, why = (FEWEST, ", and to bound what is fluent (or give others: --native)") if native is None else (2, "")
    if count < fewest + 2:
        raise TextError(
            f"There are only {count} questions. Expected at least {fewest + 2}: {fewest} to choose the settings on{why}, and some to report on."
        )
    if not fewest <= development <= count - 2:
        raise OptionError(
            f"development is {development}. Expected {fewest} to {count - 2}: there are {count} questions, {fewest} are needed to choose the "
            f"settings on{why}, and some must be left to report on."
        )
    return {k: v[:development] for k, v in asked.items()}, {k: v[development:] for k, v in asked.items()}


def _texts(option: str, flags: Sequence[str] | None, part: Any, languages: Mapping[str, Any]) -> dict[str, Any]:
    """Texts by language: those named, or the bundled ones of the languages that are asked in."""
    if flags:
        return texts_of(flags, option)
    return {language: source for language, source in samples.texts(part).items() if language in languages}


def forcing_tables(found: Result) -> Group:
    """Every family on the reporting questions, the settings that were tried, and what the edits cost."""
    report = found["forcing"].filter(source="all", target="all", split="report")
    rows = [
        [
            row["family"],
            *(_share(row, name) for name in ("in_language", "fluent", "on_topic", "good")),
            _compared(row, "good_minus_ceiling"),
            _compared(row, "good_over_ceiling"),
        ]
        for row in report.sort("good", descending=True, nulls_last=True).iter_rows(named=True)
    ]
    caption = (
        "Shares of answers, of which each setting gives one per question and pair, decoded greedily. fluent: of those in the language; topic: of "
        "those that are also fluent; good: all three, and in no other language for a sentence, a proxy by our definitions. − and ÷ ceiling: "
        "share less, and over, that when asked in the target language, averaged by target, with 95 % interval over questions and pairs."
    )
    names = ["", "in lang.", "fluent", "topic", "good", "good − ceiling", "good ÷ ceiling"]
    parts: list[Any] = [
        titled("Reporting questions, settings chosen on the development questions", names, rows, caption),
        Text(),
        _apart(found["forcing_transfer"]),
        Text(),
        _tried(found["forcing"]),
    ]
    worst = _worst(found["forcing"])
    if worst:
        parts += [Text(), Text(worst)]
    if len(found["costs"]):
        parts += [Text(), _costs(found["costs"])]
    return Group(*parts)


def _apart(table: pl.DataFrame) -> Group:
    """Pairs on which settings were chosen, and the others."""
    rows = [
        [
            row["family"],
            "chosen on" if row["tuned"] else "others",
            str(row["pairs"]),
            _share(row, "good"),
            _compared(row, "good_minus_ceiling"),
            _compared(row, "good_over_ceiling"),
        ]
        for row in table.iter_rows(named=True)
    ]
    return titled(
        "The same on the pairs on which settings were chosen, and on the others",
        ["", "pairs", "n", "good", "good − ceiling", "good ÷ ceiling"],
        rows,
    )


def _tried(table: pl.DataFrame) -> Group:
    development = table.filter(source="all", target="all", split="development")
    rows = [
        [
            row["family"],
            Text(("• " if row["chosen"] else "  ") + row["setting"], style="bold" if row["chosen"] else ""),
            number(row["in_language"], 2),
            number(row["good"], 2),
            number(row["good_minus_ceiling"], 2),
            number(row["good_over_ceiling"], 2),
        ]
        for row in development.iter_rows(named=True)
    ]
    return titled(
        "Development questions: the settings that were tried (• chosen)",
        ["", "setting", "in lang.", "good", "− ceiling", "÷ ceiling"],
        rows,
    )


def _worst(table: pl.DataFrame) -> str:
    pairs = table.filter(pl.col("source") != "all", family="neurons", split="report").drop_nulls("good_minus_ceiling")
    if not len(pairs):
        return ""
    row = pairs.sort("good_minus_ceiling").row(0, named=True)
    over = row["good_over_ceiling"]
    beside = f"{number(row['good_minus_ceiling'], 2)}" + ("" if over is None else f", and {over:.2f} times it")
    return (
        f"Worst pair for neurons: {row['source']} → {row['target']}, share of good answers less the ceiling's {beside}."
    )


def _costs(costs: pl.DataFrame) -> Group:
    roles = ("source", "target", "third")
    mean = costs.group_by(["family", "role"], maintain_order=True).agg(pl.col("delta_token").mean())
    cells = {(row["family"], row["role"]): row["delta_token"] for row in mean.iter_rows(named=True)}
    rows = [
        [family, *(number(cells.get((family, role)), 3) for role in roles)] for family in dict.fromkeys(costs["family"])
    ]
    caption = "Change of loss in nats per token on text of the pair's source, its target and third languages, mean over pairs."
    return titled("Cost of the edits on text, where they act on every token", ["", *roles], rows, caption)


def _share(row: dict[str, Any], name: str) -> str:
    return "" if row[name] is None else f"{row[name]:.1%}"


def _compared(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return ""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None else f" ({number(low, 2)} to {number(high, 2)})"
    return f"{number(row[name], 2)}{ends}"
