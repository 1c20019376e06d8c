"""Parallel text: line i is the same sentence in every language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
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


@dataclass(frozen=True)
class Aligned:
    """Parallel text that was read."""

    lines: dict[str, list[str]]
    """Standard tag -> its lines."""
    documents: tuple[int, ...] | None
    """The document of each line, from 0, the same in all languages; None where no document holds several, or all are one."""


def aligned_lines(parallel: Parallel, *, column: str = "text") -> dict[str, list[str]]:
    """Lines by standard tag, as `aligned` reads them."""
    return aligned(parallel, column=column).lines


def aligned(parallel: Parallel, *, column: str = "text") -> Aligned:
    """Read parallel text; `column` holds the text of a file of records, each of which is a document of one line or more.

    Raises TextError where languages differ in how many lines there are, in all or in a document, a line is empty or a language comes twice.

    Example:
        >>> from lape.data.parallel import aligned
        >>> aligned({"en": ["A cat.", "A dog."], "fr": ["Un chat.", "Un chien."]})
        Aligned(lines={'en': ['A cat.', 'A dog.'], 'fr': ['Un chat.', 'Un chien.']}, documents=None)
    """
    each = tagged(parallel, "{tag} is given twice. Give each language one file of aligned lines.")
    read = {language: _documents(language, source, column) for language, source in each}
    result = {language: [line for document in documents for line in document] for language, documents in read.items()}
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
    return Aligned(result, _one_numbering({language: [len(one) for one in found] for language, found in read.items()}))


def _one_numbering(lengths: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    """The document of each line, from how many lines each document has; languages whose lines stand by themselves, or are one document, say nothing."""
    several = [language for language, of in lengths.items() if max(of, default=0) > 1 and len(of) > 1]
    if not several:
        return None
    first, *others = several
    for other in others:
        for number, (here, there) in enumerate(zip_longest(lengths[first], lengths[other], fillvalue=0), 1):
            if here != there:
                raise TextError(
                    f"Document {number} has {here} lines in {first} and {there} in {other}. Give every language the same documents, line by line, or "
                    "files of lines alone (.txt)."
                )
    return tuple(number for number, count in enumerate(lengths[first]) for _ in range(count))


def _documents(language: str, source: str | Path | Sequence[str] | Documents, column: str) -> list[list[str]]:
    """The lines of each document, without white space at their ends; empty ones are kept, so that numbers stay those of the file."""
    if isinstance(source, (str, Path)):
        texts = ("".join(pieces) for pieces in documents(source, column=column))
        return [[line.strip() for line in text.removesuffix("\n").split("\n")] for text in texts]
    given_lines = source if isinstance(source, Documents) else Documents(source)
    if not all(isinstance(line, str) for line in given_lines.texts):
        raise TextError(f"The lines of {language} are not all strings. Expected one path, or the lines themselves.")
    return [["".join(pieces).strip()] for pieces in documents(given_lines)]


def spread(
    lines: Mapping[str, Sequence[str]],
    tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    within: Sequence[int] | None = None,
) -> tuple[list[int], dict[str, Documents]]:
    """The numbers of about as many lines as give `tokens` tokens per language on average, evenly spread, and their text, each line a document.

    `within`: the document that each line is of, as `Aligned.documents` has it: its lines are one unit of resampling. Where these are not known, lines far
    apart are resampled as if they were independent, though neighbouring ones come from the same article.
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
    units = None if within is None else [within[k] for k in numbers]
    return numbers, {language: Documents([one[k] for k in numbers], units) for language, one in lines.items()}


def warn_of_few(texts: Mapping[str, Documents], tokens: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn where `spread` found too few lines, or lines of too few documents, for an interval: how many, of how many tokens really, and what to ask for."""
    count = min(len(one.texts) for one in texts.values())
    held_by = min(len(set(one.units or range(len(one.texts)))) for one in texts.values())
    if held_by >= ENOUGH:
        return
    if count >= ENOUGH:
        warn(
            f"The {count} sentences that were taken are of {held_by} documents, which are what is resampled. With fewer than {ENOUGH} there are no intervals: "
            "give more documents, or files of lines alone (.txt) if they are sentences by themselves."
        )
        return
    each = [tokenizer(list(one.texts), add_special_tokens=False)["input_ids"] for one in texts.values()]
    held = sum(len(ids) for one in each for ids in one) / len(each)
    enough = math.ceil(1.2 * ENOUGH * max(tokens, held) / count / 100) * 100
    warn(
        f"For {tokens:,} tokens of parallel text, {count} sentences were taken, {held:,.0f} tokens per language on average. With fewer than {ENOUGH} "
        f"there are no intervals and little can be concluded: give tokens={enough} or more, and a text with enough lines."
    )
