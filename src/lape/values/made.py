"""What results say they were made from: short names of neurons and of statistics by their content, and whether two such notes agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from lape.signs import many

NEURONS, STATISTICS = "neurons", "statistics"
_MODEL = ("checksum", "config", "dtype", "adapters")
"""What decides what a model computes; what names it, and what differs from one machine to the next, is left out."""


def digest(value: object) -> str:
    """SHA-256, in hex, of a value of JSON: keys of objects in any order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def recorded_from(manifest: Mapping[str, Any]) -> str | None:
    """What names statistics by what they were recorded from: model, tokenizer, texts with their tokens, rules of counting and quantities.

    Merged in any order they have one name, and shards that are all merged have that of a single run. None where a manifest names no texts.
    """
    texts = manifest.get("corpus")
    if not texts:
        return None
    model, until = manifest.get("model") or {}, manifest.get("until") or {}
    return digest(
        {
            "model": {key: model[key] for key in _MODEL if model.get(key) is not None},
            "tokenizer": (manifest.get("tokenizer") or {}).get("hash"),
            "texts": {language: _in_order(one) for language, one in texts.items()},
            "counting": manifest.get("counting"),
            "quantities": sorted(manifest.get("quantities") or ()),
            "tuned": manifest.get("tuned"),
            "until": [one.get("tokens") for one in until.get("curve", ())[-1:]],
        }
    )


def _in_order(texts: Any) -> list[Any]:
    """A language's texts, one or several, in one order."""
    listed: Iterable[Any] = [texts] if isinstance(texts, Mapping) else texts
    return sorted(listed, key=digest)


def differs(made_from: object, present: Mapping[str, Any]) -> str | None:
    """What a result was measured with instead of what is there now, in words; None where it was these, or where one of the two is not known.

    `made_from`: what its run.json says; `present`: the `made_from` of what is there.
    """
    made = made_from if isinstance(made_from, Mapping) else {}
    if all(made.get(key) in (None, present.get(key)) for key in (NEURONS, STATISTICS) if present.get(key)):
        return None
    if present.get(NEURONS) and made.get(NEURONS) not in (None, present[NEURONS]):
        return f"other neurons ({called(made)})"
    return "other statistics"


def called(made: Mapping[str, Any]) -> str:
    """Which neurons these are, in words."""
    method, size = made.get("method"), made.get("size")
    if not isinstance(method, str) or not isinstance(size, int):
        return "nothing says which"
    return f"{method}, {many(size, 'neuron')}"
