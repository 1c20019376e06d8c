"""Which lines of a parallel text are evaluated: the same in all languages, evenly spread, each a document of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lape.data.texts import Documents
from lape.errors import TextError
from lape.experiments.similarity.run import Parallel, aligned_lines

_PROBE = 200


def parallel_lines(parallel: Parallel) -> dict[str, list[str]]:
    """Language -> lines, line i the same sentence in each."""
    return {language: list(lines) for language, lines in aligned_lines(parallel).items()}


def spread(lines: Mapping[str, list[str]], tokens: int, tokenizer: Any) -> tuple[list[int], dict[str, Documents]]:
    """The numbers of about as many lines as give `tokens` tokens a language on average, and their text.

    Neighbouring lines come from the same article; lines far apart can be resampled as if they were independent.
    """
    count = min(len(one) for one in lines.values())
    probe = sorted({round(k * (count - 1) / (_PROBE - 1)) for k in range(_PROBE)})
    lengths = [
        len(ids)
        for one in lines.values()
        for ids in tokenizer([one[k] for k in probe], add_special_tokens=False)["input_ids"]
    ]
    wanted = max(2, round(tokens * len(lengths) / max(sum(lengths), 1)))
    if wanted > count:
        wanted = count
    numbers = sorted({round((k + 0.5) * count / wanted - 0.5) for k in range(wanted)})
    if len(numbers) < 2:
        raise TextError(f"The parallel text has {count} lines. A study needs more: 20 at least for intervals.")
    return numbers, {language: Documents([one[k] for k in numbers]) for language, one in lines.items()}
