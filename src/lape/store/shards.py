"""Shards: the batches of a text recorded by several runs, which add up to what one run of all of them records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lape.errors import FileError, MismatchError, OptionError

Corpora = dict[str, Any]
"""Language -> what a manifest says of its text, or a list of such where several texts were merged."""
_DIVISION = ("of", "batches", "batch_tokens")


@dataclass(frozen=True)
class Shard:
    """Every `of`-th batch, from the `number`-th on, counted from 1.

    All shards read the whole text and make the same batches of it, so that every batch is computed as in a single run.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/16`. Raises OptionError for anything else."""
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise OptionError(f"shard is {text!r}. Expected NUMBER/OF, from 1/16 to 16/16 for sixteen shards.")
        return cls(number, of)

    def mine(self, batches: int) -> list[int]:
        """The numbers of this shard's batches."""
        return list(range(self.number - 1, batches, self.of))

    def describe(self, batches: int, batch_tokens: int) -> dict[str, Any]:
        """What a manifest says of it, beside the text it is a shard of: which one, and of what division."""
        if self.of == 1:
            return {}
        return {"shards": [self.number], "of": self.of, "batches": batches, "batch_tokens": batch_tokens}


def joined(a: Corpora, b: Corpora) -> Corpora:
    """The texts of two manifests together; shards of one text become one. Raises MismatchError for text that is in both."""
    result: Corpora = {}
    for language in [*a, *(language for language in b if language not in a)]:
        by_hash: dict[str, dict[str, Any]] = {}
        for one in (*_listed(a.get(language, ())), *_listed(b.get(language, ()))):
            before = by_hash.get(str(one.get("hash")))
            by_hash[str(one.get("hash"))] = one if before is None else _together(language, before, one)
        texts = [by_hash[key] for key in sorted(by_hash)]
        result[language] = texts[0] if len(texts) == 1 else texts
    return result


def _listed(text: Any) -> Iterable[dict[str, Any]]:
    return [text] if isinstance(text, dict) else text


def _together(language: str, a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    text = f"{language}, text {str(a.get('hash'))[:12]}…"
    if any(a.get(key) != b.get(key) for key in _DIVISION):
        raise MismatchError(f"{text}: {_said(a)} and {_said(b)} overlap. Merge the shards of one division, each once.")
    double = sorted({*a.get("shards", [1])} & {*b.get("shards", [1])})
    if double:
        raise MismatchError(
            f"{text}: {_said({**a, 'shards': double} if 'of' in a else a)} is there twice. Merge each once."
        )
    shards = sorted([*a["shards"], *b["shards"]])
    if len(shards) < a["of"]:
        return {**a, "shards": shards}
    return {key: value for key, value in a.items() if key not in ("shards", *_DIVISION)}


def _said(text: dict[str, Any]) -> str:
    if "of" not in text:
        return "the whole"
    return f"shard {', '.join(map(str, text['shards']))} of {text['of']} ({text['batches']} batches of {text['batch_tokens']} tokens)"


def partly(corpora: Corpora) -> set[str]:
    """The languages of which shards are there. Raises FileError for shards that are none."""
    found = set()
    for language, texts in corpora.items():
        for one in _listed(texts):
            if "of" not in one:
                continue
            if any(name not in one for name in ("shards", *_DIVISION)) or not set(one["shards"]) <= set(
                range(1, one["of"] + 1)
            ):
                raise FileError(f"{language} has shards {one.get('shards')} of {one['of']}.")
            found.add(language)
    return found


def missing(corpora: Corpora) -> list[str]:
    """What is not there of texts of which some shards are: `fr: shards 2, 5 of 16`."""
    result = []
    for language, one in each_text(corpora):
        if "of" in one:
            lacking = [k for k in range(1, one["of"] + 1) if k not in one["shards"]]
            result.append(f"{language}: shard {', '.join(map(str, lacking))} of {one['of']}")
    return result


def each_text(corpora: Corpora) -> list[tuple[str, dict[str, Any]]]:
    """Each language with each of its texts."""
    return [(language, one) for language, texts in corpora.items() for one in _listed(texts)]


def check_whole(manifest: Mapping[str, Any]) -> None:
    """Raise MismatchError where a manifest says that only some shards of a text are there: a part of a text is no sample of it."""
    lacking = missing(manifest.get("corpus") or {})
    if lacking:
        raise MismatchError(
            f"Not all shards are there. Missing: {'; '.join(lacking)}. Record them and merge all at once: lape merge SHARD SHARD ... --out RUN."
        )
