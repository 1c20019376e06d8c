"""A run's sections as plain values that a template writes out; what a run lacks, with the command that makes it."""

from __future__ import annotations

import shlex
from typing import Any

import polars as pl

from lape.detect.stability import UNION
from lape.reporting import charts
from lape.reporting.findings import by_layer
from lape.reporting.gathered import Gathered
from lape.reporting.safe import answer
from lape.study.claims import read as read_claims

UNITS = {
    "delta_token": "nats a token",
    "delta_sentence": "nats a sentence",
    "delta_character": "nats a character",
    "percent": "% of perplexity",
}
"""Columns of the loss matrix, and what they are in."""
CONTROLS = {"matched": "less the mean of matched neurons", "random": "less the mean of random neurons"}
_FAMILIES = (
    "ceiling",
    "neurons",
    "prompt",
    "mask",
    "diffmean",
    "random",
    "other",
    "permuted",
    "source off",
    "target only",
    "none",
)
_SHOWN = ("ceiling", "none", "neurons", "prompt", "random")
"""Families whose sample answers stand side by side."""
_QUESTIONS = 3


def sentence(run: Gathered) -> str:
    """What was run, in one sentence."""
    model, languages = run.model, run.languages
    what = "A study of" if run.record.get("verb") == "study" else "Language neurons of"
    parts = [f"{what} {model.get('id', 'a model')}"]
    if model.get("dtype"):
        parts.append(f"in {model['dtype']}")
    parts.append(f"in {len(languages)} languages ({', '.join(languages)})")
    tokens = recorded_tokens(run)
    if tokens:
        low, high = min(tokens.values()), max(tokens.values())
        parts.append(
            f"recorded on {low:,} to {high:,} tokens of each" if low < high else f"recorded on {low:,} tokens of each"
        )
    if run.neurons is not None:
        parts.append(f"chosen by the method {run.neurons.method}: {len(run.neurons.union):,} of {run.neurons.space}")
    elif run.record.get("space"):
        parts.append(f"of {run.record['space']}")
    return ", ".join(parts) + "."


def recorded_tokens(run: Gathered) -> dict[str, int]:
    """Language -> counted tokens."""
    if run.stats is not None:
        return {language: int(run.stats[language].tokens.sum()) for language in run.stats.languages}
    found: dict[str, int] = run.record.get("recorded_tokens", {})
    return found


def cards(run: Gathered) -> list[dict[str, Any]]:
    """One a language: its neurons, layers, reliability, own damage and controls."""
    counts, tokens = by_layer(run), recorded_tokens(run)
    reliability = _rows(run, "reliability", "language")
    own = {row["off"]: row for row in _iter(run, "perplexity") if row["off"] == row["language"]}
    result = []
    for language in run.languages:
        mine = (
            None if counts is None else counts.filter(pl.col("language") == language).sort("layer")["neurons"].to_list()
        )
        result.append(
            {
                "language": language,
                "tokens": tokens.get(language),
                "layers": mine,
                "neurons": sum(mine) if mine is not None else None,
                "alone": len(run.neurons.only(language)) if run.neurons is not None else None,
                "reliability": reliability.get(language),
                "own": own.get(language),
            }
        )
    return result


def overlap(run: Gathered) -> dict[str, Any] | None:
    """Shared neurons and Jaccard of every two languages."""
    if run.neurons is not None:
        table = run.neurons.overlap()
    elif "overlap" in run.tables:
        table = run.tables["overlap"].select("a", "b", "shared", "jaccard")
        table = pl.concat([table, table.select(pl.col("b").alias("a"), pl.col("a").alias("b"), "shared", "jaccard")])
    else:
        return None
    cells = {(row["a"], row["b"]): row for row in table.iter_rows(named=True)}
    languages = run.languages
    return {
        "languages": languages,
        "shared": [[_of(cells, a, b, "shared") for b in languages] for a in languages],
        "jaccard": [[_of(cells, a, b, "jaccard") for b in languages] for a in languages],
    }


def _of(cells: dict[tuple[str, str], Any], a: str, b: str, name: str) -> Any:
    return None if (a, b) not in cells else round(cells[a, b][name], 3)


def matrix(run: Gathered) -> dict[str, Any] | None:
    """The change of loss, off × evaluated, in every unit, and less each control where that was drawn."""
    table = run.tables.get("perplexity")
    if table is None:
        return None
    off, evaluated = (table[name].unique(maintain_order=True).to_list() for name in ("off", "language"))
    cells = {(row["off"], row["language"]): row for row in table.iter_rows(named=True)}
    views = {name: {"title": title, "values": _grid(cells, off, evaluated, name)} for name, title in UNITS.items()}
    for kind, title in CONTROLS.items():
        grid = [
            [
                None
                if (row := cells.get((a, b))) is None or row[f"{kind}_mean"] is None
                else row["delta_token"] - row[f"{kind}_mean"]
                for b in evaluated
            ]
            for a in off
        ]
        if any(value is not None for line in grid for value in line):
            views[kind] = {"title": f"nats a token, {title}", "values": grid}
    intervals = [[_interval(cells.get((a, b))) for b in evaluated] for a in off]
    units = sorted({row["units"] for row in cells.values()})
    return {"off": off, "evaluated": evaluated, "views": views, "intervals": intervals, "units": units}


def _grid(
    cells: dict[tuple[str, str], Any], off: list[str], evaluated: list[str], name: str
) -> list[list[float | None]]:
    return [[None if (a, b) not in cells else cells[a, b][name] for b in evaluated] for a in off]


def _interval(row: dict[str, Any] | None) -> list[float] | None:
    return None if row is None or row["low"] is None else [row["low"], row["high"]]


def steering(run: Gathered) -> dict[str, Any] | None:
    """What every family of methods does, averaged over pairs, its cost, and answers side by side."""
    if "forcing" not in run.tables:
        return None
    rows = run.forced
    spent = _costs(run)
    families = [{**rows[name], **spent.get(name, {})} for name in _FAMILIES if name in rows]
    return {"families": families, "answers": _answers(run), "rest": [name for name in rows if name not in _FAMILIES]}


def _costs(run: Gathered) -> dict[str, dict[str, float]]:
    """Family -> the mean change of loss on text of the target and of third languages, while the edit acts on every token."""
    table = run.tables.get("forcing costs")
    if table is None or not len(table):
        return {}
    means = table.filter(pl.col("role") != "source").group_by("family", "role").agg(pl.col("delta_token").mean())
    found: dict[str, dict[str, float]] = {}
    for family, role, cost in means.iter_rows():
        found.setdefault(family, {})[f"cost_{role}"] = cost
    return found


def _answers(run: Gathered) -> list[dict[str, Any]]:
    """A few questions of each pair that was asked first, with the answers of some families."""
    table = run.tables.get("forced answers")
    if table is None:
        return []
    reported = table.filter((pl.col("split") == "report") & pl.col("family").is_in(_SHOWN))
    result = []
    pairs = reported.filter(pl.col("source") != pl.col("target")).select("source", "target").unique(maintain_order=True)
    for source, target in pairs.head(6).iter_rows():
        mine = reported.filter((pl.col("target") == target) & pl.col("source").is_in([source, target]))
        for question in mine["question"].unique().sort().head(_QUESTIONS).to_list():
            asked = mine.filter(pl.col("question") == question)
            rows = {row["family"]: row for row in asked.iter_rows(named=True)}
            answers = [_answer(rows[family]) for family in _SHOWN if family in rows]
            result.append({"source": source, "target": target, "question": question, "answers": answers})
    return result


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{k: row[k] for k in ("family", "setting", "language", "in_language", "good")},
        "answer": answer(row["answer"]),
    }


def ablated(run: Gathered) -> list[dict[str, Any]]:
    """Of a study: what the model answers while languages are off."""
    table = run.tables.get("ablated answers")
    if table is None or not {"off", "control", "identified"} <= set(table.columns):
        return []
    result = []
    for language in [language for language in run.languages if language in table["language"]]:
        mine = table.filter((pl.col("language") == language) & ~pl.col("control") & (pl.col("draw") == 0))
        for question in mine["question"].unique().sort().head(2).to_list():
            rows = mine.filter((pl.col("question") == question) & pl.col("off").is_in(["none", language]))
            answers = [
                {
                    "family": "nothing off" if row["off"] == "none" else f"{row['off']} off",
                    "language": row["identified"],
                }
                | {"in_language": row["in_language"], "good": row["good"], "answer": answer(row["answer"])}
                for row in rows.iter_rows(named=True)
            ]
            result.append({"source": language, "target": language, "question": question, "answers": answers})
    return result


def sweep(run: Gathered) -> list[dict[str, str]]:
    """Curves over set sizes: own and others."""
    table = run.tables.get("sweep")
    if table is None:
        return []
    known = [language for language in run.languages if language in table["language"]]
    rows = table.filter(pl.col("language").is_in(known))
    titles = {
        "own": "own: change of its own loss, nats a token",
        "others": "others: mean change of the other languages",
    }
    return [
        {"title": title, "svg": charts.curves(rows, "size", name, ("neurons in all", title), known)}
        for name, title in titles.items()
    ]


def claims(run: Gathered) -> list[dict[str, Any]]:
    """A study's claims and their verdicts."""
    judged = run.record.get("claims") if run.record.get("verb") == "study" else None
    if not judged or not (run.folder / "claims.toml").is_file():
        return []
    says = {claim.name: claim for claim in read_claims(run.folder / "claims.toml")}
    return [{**one, "says": says[one["name"]].says if one["name"] in says else one["name"]} for one in judged]


def missing(run: Gathered) -> list[dict[str, str]]:
    """What could be here and is not, and the command that makes it."""
    name, folder = run.model.get("id") or "MODEL", shlex.quote(str(run.folder))
    bundled = run.record.get("verb") == "demo" or "sample" in run.record.get("command", [])[:2]
    model = "sample" if bundled else shlex.quote(name)
    study = run.record.get("verb") == "study"
    wanted = [
        ("Language neurons", run.neurons is not None or study, f"lape identify {folder}"),
        ("The loss matrix", "perplexity" in run.tables, f"lape perplexity {model} {folder} --text TAG=PATH ..."),
        ("Reliability", "reliability" in run.tables, f"lape identify {folder} --overwrite"),
        ("Steering", "forcing" in run.tables, f"lape force {model} --run {folder}"),
        ("Sample answers", "forced answers" in run.tables or bool(ablated(run)), f"lape force {model} --run {folder}"),
        (
            "Texts on which neurons fire, and the words they promote",
            "contexts" in run.tables,
            f"lape examples {model} {folder}",
        ),
        (
            "Sweeps over set sizes, and claims",
            study,
            f"lape study {model} --run {folder} --parallel TAG=PATH ... --out STUDY",
        ),
    ]
    return [{"what": what, "command": command} for what, there, command in wanted if not there]


def provenance(run: Gathered) -> list[tuple[str, str]]:
    """Model, text, versions, and the command to repeat it."""
    model, record = run.model, run.record
    manifest = (
        run.stats.manifest if run.stats is not None else run.neurons.manifest if run.neurons is not None else record
    )
    corpus = manifest.get("corpus") or record.get("statistics", {}).get("corpus", {})
    rows = [
        ("model", str(model.get("id", ""))),
        ("revision", str(model.get("revision") or "not named")),
        ("checksum of its parameters", str(model.get("checksum", ""))),
        ("hash of its configuration", str(model.get("config", ""))),
        ("number format", str(model.get("dtype", ""))),
        ("hash of its tokenizer", str((manifest.get("tokenizer") or record.get("tokenizer") or {}).get("hash", ""))),
        *(
            (f"text of {language}", f"{one.get('documents', 0):,} documents, SHA-256 {one.get('hash', '')}")
            for language, one in corpus.items()
        ),
        (
            "versions",
            ", ".join(
                f"{name} {one}" for name, one in (record.get("versions") or manifest.get("versions") or {}).items()
            ),
        ),
        ("command", shlex.join(["lape", *record["command"]]) if record.get("command") else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _iter(run: Gathered, table: str) -> list[dict[str, Any]]:
    return run.tables[table].to_dicts() if table in run.tables else []


def _rows(run: Gathered, table: str, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in _iter(run, table) if row[key] != UNION}
