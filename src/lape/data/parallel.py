"""Parallel text: line i is the same sentence in every language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lape.data.languages import tagged
from lape.data.texts import Documents, documents
from lape.errors import TextError, warn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Parallel: TypeAlias = Mapping[str, str | Path | Sequence[str] | Documents]
"""Language tag -> a file, or the lines themselves (a list of strings is lines here, not paths). Line i is the same sentence in each."""
ENOUGH = 20
"""Lines from which an interval can be made."""
_PROBE = 200
"""Lines by which the length of all is judged."""


def aligned_lines(parallel: Parallel, *, column: str = "text") -> dict[str, list[str]]:
    """Lines by standard tag; `column` holds the text of a file of records.

    Raises TextError where languages differ in how many, a line is empty or a language comes twice.
    """
    each = tagged(parallel, "{tag} is given twice. Give each language one file of aligned lines.")
    result = {language: _lines(language, source, column) for language, source in each}
    counts = {language: len(lines) for language, lines in result.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{language} {count}" for language, count in counts.items())
        raise TextError(
            f"Line i must be the same sentence in every language, but the numbers of lines differ: {listed}. Give as many to each."
        )
    for language, lines in result.items():
        for number, line in enumerate(lines, 1):
            if not line:
                raise TextError(
                    f"{language}, line {number} is empty. Fill it, or take line {number} out of every language."
                )
    return result


def _lines(language: str, source: str | Path | Sequence[str] | Documents, column: str) -> list[str]:
    """Lines without white space at their ends; empty ones are kept, so that numbers stay those of the file."""
    if isinstance(source, (str, Path)):
        texts = ["".join(pieces) for pieces in documents(source, column=column)]
        return [line.strip() for text in texts for line in text.removesuffix("\n").split("\n")]
    given_lines = source if isinstance(source, Documents) else Documents(source)
    if not all(isinstance(line, str) for line in given_lines.texts):
        raise TextError(f"The lines of {language} are not all strings. Expected one path, or the lines themselves.")
    return ["".join(pieces).strip() for pieces in documents(given_lines)]


def spread(
    lines: Mapping[str, Sequence[str]], tokens: int, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], dict[str, Documents]]:
    """The numbers of about as many lines as give `tokens` tokens per language on average, evenly spread, and their text, each line a document.

    Neighbouring lines come from the same article; lines far apart can be resampled as if they were independent.
    """
    count = min(len(one) for one in lines.values())
    probe = sorted({round(k * (count - 1) / (_PROBE - 1)) for k in range(_PROBE)})
    lengths = [
        len(ids)
        for one in lines.values()
        for ids in tokenizer([one[k] for k in probe], add_special_tokens=False)["input_ids"]
    ]
    wanted = min(max(2, round(tokens * len(lengths) / max(sum(lengths), 1))), count)
    numbers = sorted({round((k + 0.5) * count / wanted - 0.5) for k in range(wanted)})
    if len(numbers) < 2:
        raise TextError(f"The parallel text has {count} lines. A study needs more: {ENOUGH} at least for intervals.")
    return numbers, {language: Documents([one[k] for k in numbers]) for language, one in lines.items()}


def warn_of_few(texts: Mapping[str, Documents], tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn where `spread` found too few lines for an interval: how many, of how many tokens really, and what to ask for."""
    count = min(len(one.texts) for one in texts.values())
    if count >= ENOUGH:
        return
    each = [tokenizer(list(one.texts), add_special_tokens=False)["input_ids"] for one in texts.values()]
    held = sum(len(ids) for one in each for ids in one) / len(each)
    enough = math.ceil(1.2 * ENOUGH * max(tokens, held) / count / 100) * 100
    warn(
        f"For {tokens:,} tokens of parallel text, {count} sentences were taken, {held:,.0f} tokens per language on average. With fewer than {ENOUGH} "
        f"there are no intervals and little can be concluded: give tokens={enough} or more, and a text with enough lines."
    )
