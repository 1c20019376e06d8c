"""The neuron browser's data: the selected neurons, as small as a page needs them."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import torch

from lape.reporting.gather import Gathered
from lape.reporting.safe import embedded, shown
from lape.values.neurons import LanguageNeurons

CONTEXTS = 5
"""Texts a neuron at most, of 32 tokens at most."""
TOKENS = 32
_PIECE = 40
"""Characters of a token at most."""
ROOM = 2_500_000
"""Characters of JSON at most: as many contexts are left out as it takes."""


def browser(run: Gathered) -> dict[str, Any] | None:
    """Every selected neuron, with its texts as far as there is room; `left_out` says what is not here. None without neurons."""
    neurons = run.neurons
    if neurons is None:
        return None
    rows, total = _neurons(run, neurons), _contexts_in(run)
    data: dict[str, Any] = {"languages": run.languages, "layers": list(neurons.space.layers), "neurons": rows}
    for most in range(CONTEXTS, -1, -1):
        data |= {**_contexts(run, most), "left_out": _left_out(neurons, most, total)}
        if len(embedded(data)) <= ROOM:
            break
    return data


def _left_out(neurons: LanguageNeurons, most: int, total: int) -> str:
    rest = len(neurons.space) - len(neurons.union)
    parts = [f"{rest:,} neurons that no language's set holds (their counts: stats.safetensors)"]
    if total > most:
        parts.append(f"of each neuron's texts all but {most} (up to {total} of each: examples/contexts.parquet)")
    return "Left out: " + "; ".join(parts) + "."


def _neurons(run: Gathered, neurons: LanguageNeurons) -> list[dict[str, Any]]:
    flat = neurons.union.flat
    stats = run.stats
    probabilities = None if stats is None else stats.probabilities()[:, flat].T.tolist()
    means = None
    if stats is not None and all("sum" in one.tensors for one in stats.by_language.values()):
        means = torch.stack([stats.mean(language)[flat] for language in stats.languages], 1).tolist()
    stability = {
        k: dict(zip(neurons[k].flat.tolist(), one.tolist(), strict=True)) for k, one in neurons.stability.items()
    }
    effects, words = _effects(run), _words(run)
    result = []
    for n, (number, (layer, expert, index)) in enumerate(
        zip(flat.tolist(), neurons.union.addresses().iter_rows(), strict=True)
    ):
        mine = [k for k, language in enumerate(neurons) if number in neurons.sets[language]]
        row: dict[str, Any] = {"f": number, "l": layer, "i": index, "g": mine}
        if expert is not None:
            row["x"] = expert
        if neurons.scores is not None and math.isfinite(score := float(neurons.scores[n])):
            row["e"] = round(score, 4)
        if probabilities is not None:
            row["p"] = [round(one, 4) for one in probabilities[n]]
        if means is not None:
            row["m"] = [float(f"{one:.3g}") for one in means[n]]
        stable = {
            k: round(stability[language][number], 2)
            for k, language in enumerate(neurons)
            if number in stability.get(language, {})
        }
        row |= {"s": stable} if stable else {}
        row |= {"d": effects[number]} if number in effects else {}
        row |= {"w": words[number]} if number in words else {}
        result.append(row)
    return result


def _effects(run: Gathered) -> dict[int, list[list[Any]]]:
    """Flat -> [language, delta, low, high] each."""
    found: dict[int, list[list[Any]]] = {}
    for row in _rows(run, "own"):
        found.setdefault(row["flat"], []).append(
            [row["language"], *(_short(row[name]) for name in ("delta", "low", "high"))]
        )
    return found


def control_effects(run: Gathered) -> dict[str, list[float]]:
    """Language -> what switching off single matched neurons does, nats per token."""
    found: dict[str, list[float]] = {}
    for row in _rows(run, "control"):
        found.setdefault(row["language"], []).append(_short(row["delta"]) or 0.0)
    return found


def _rows(run: Gathered, kind: str) -> list[dict[str, Any]]:
    return run.tables["effects"].filter(kind=kind).to_dicts() if "effects" in run.tables else []


def _words(run: Gathered) -> dict[int, list[list[str]]]:
    """Flat -> tokens promoted, tokens suppressed."""
    found: dict[int, list[list[str]]] = {}
    if "words" in run.tables:
        for row in run.tables["words"].sort("flat", "kind", "rank").iter_rows(named=True):
            found.setdefault(row["flat"], [[], []])[row["kind"] == "suppresses"].append(shown(row["token"], _PIECE))
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _contexts_in(run: Gathered) -> int:
    table = run.tables.get("contexts")
    return 0 if table is None or not len(table) else int(table["rank"].max()) + 1  # type: ignore[arg-type]


def _contexts(run: Gathered, most: int) -> dict[str, Any]:
    """`texts`: each once, [language, pieces]; `contexts`: flat -> [text, value, a digit 0 to 9 for each token]."""
    table = run.tables.get("contexts")
    if table is None or not most:
        return {"texts": [], "contexts": {}}
    texts: dict[tuple[Any, ...], int] = {}
    written: list[list[Any]] = []
    found: dict[str, list[list[Any]]] = {}
    for row in table.filter(pl.col("rank") < most).sort("flat", "rank").iter_rows(named=True):
        key = (row["language"], row["start"], len(row["pieces"]))
        if key not in texts:
            texts[key] = len(written)
            written.append([row["language"], [shown(piece, _PIECE) for piece in row["pieces"][:TOKENS]]])
        top = max(row["value"], 1e-12)
        digits = "".join(str(min(9, max(0, round(9 * a / top)))) for a in row["activations"][:TOKENS])
        found.setdefault(str(row["flat"]), []).append([texts[key], _short(row["value"]), digits])
    return {"texts": written, "contexts": found}
