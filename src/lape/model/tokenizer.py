"""What makes two tokenizers the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

_SCRIPTS = (
    "The quick brown fox can't jump over 12,345 lazy dogs! Où est-ce que ça mène, señor? Größe, çok güzel, żółw, tiếng Việt. "
    "Быстрая лиса. Γρήγορη αλεπού. שועל מהיר. ثعلب سريع. तेज़ लोमड़ी। เร็ว. 敏捷的棕色狐狸。すばやい狐。빠른 여우. def f(x):\n\treturn x**2  # 🦊\n"
)
"""A text of many scripts, on which tokenizers that are not the same rarely agree."""


def told_of(tokenizer: Any) -> dict[str, Any]:
    """What a manifest says of a tokenizer: a hash of its definition, and of how it splits a text of many scripts."""
    ids = tokenizer(_SCRIPTS, add_special_tokens=False)["input_ids"]
    return {"hash": tokenizer_hash(tokenizer), "probe": _hash(json.dumps(ids))[:16]}


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 over a tokenizer's definition."""
    return _hash("\n".join(_definition(tokenizer)))


def _definition(tokenizer: Any) -> Iterator[str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        definition = backend.to_str()  # truncation and padding stand at its head and change with use
        head, tail = definition[:1000], definition[1000:]
        yield re.sub(r'"(truncation|padding)":(null|\{[^{}]*(\{[^{}]*\})?[^{}]*\}),', "", head) + tail
    else:
        yield json.dumps(sorted(tokenizer.get_vocab().items()))
    yield json.dumps(sorted(map(str, tokenizer.all_special_tokens)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
