"""How alike languages are, apart from any model's neurons: family, script, and the tokens their text uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lape.data.languages import script, tag
from lape.errors import OptionError
from lape.experiments.overlap.genealogy import kinship
from lape.experiments.overlap.mantel import Matrix

TokenCounts: TypeAlias = Mapping[int, int] | Sequence[int] | NDArray[np.int64]
"""How often each token id occurs: id -> count, or one count for each id."""
_T = TypeVar("_T")
_SCRIPTS = {
    "Hanb": {"Hani", "Bopo"},
    "Hans": {"Hani"},
    "Hant": {"Hani"},
    "Hrkt": {"Hira", "Kana"},
    "Jpan": {"Hani", "Hira", "Kana"},
    "Kore": {"Hang", "Hani"},
}
"""ISO 15924 codes that stand for several scripts, or for a variant of one."""


def relations(languages: Iterable[str]) -> dict[str, Matrix]:
    """How alike languages are by what is known of them: relation -> (languages, languages) float64, 0 to 1, nan where not known.

    `genealogy`: the share of their ways through a family tree that two languages have in common (`lape.experiments.overlap.genealogy`). `script`:
    the Jaccard of the scripts each is usually written in (langcodes; the tag may say another, `hi-Latn`). Japanese counts as
    Han, Hiragana and Katakana, Korean as Hangul and Han, and both forms of Chinese as Han. Raises TextError for no tag.
    """
    names = [tag(language) for language in languages]
    return {"genealogy": pairwise(names, kinship), "script": pairwise(names, _script_likeness)}


def pairwise(things: Sequence[_T], likeness: Callable[[_T, _T], float | None]) -> Matrix:
    """(things, things) float64: each one's likeness to each, nan where there is none."""
    values = [[likeness(a, b) for b in things] for a in things]
    return np.array(values, dtype=np.float64).reshape(len(things), len(things))


def _script_likeness(a: str, b: str) -> float | None:
    first, second = _scripts(a), _scripts(b)
    return len(first & second) / len(first | second) if first and second else None


def _scripts(language: str) -> set[str]:
    code = script(language)
    return _SCRIPTS.get(code, {code}) if code else set()


def token_overlap(tokens: Mapping[str, TokenCounts]) -> Matrix:
    """How alike languages are in the tokens they use: (languages, languages) float64, in the order given, 0 to 1.

    Weighted Jaccard Σ min(p, q) / Σ max(p, q) over token ids, where p and q are each text's shares of tokens, so that the amount
    of text does not count. Raises OptionError for a text without tokens, and for numbers that are no counts.
    """
    shares = [_shares(language, counts) for language, counts in tokens.items()]
    widest = max(map(len, shares), default=0)
    padded = [np.pad(one, (0, widest - len(one))) for one in shares]
    return pairwise(padded, lambda p, q: float(np.minimum(p, q).sum() / np.maximum(p, q).sum()))


def _shares(language: str, counts: TokenCounts) -> Matrix:
    if isinstance(counts, Mapping):
        ids = np.array(list(counts), dtype=np.int64)
        if (ids < 0).any():
            raise OptionError(f"{language}: token {ids.min()} was counted. Expected token ids from 0 on.")
        found = np.zeros(int(ids.max(initial=-1)) + 1)
        found[ids] = list(counts.values())
    else:
        found = np.asarray(counts, dtype=np.float64)
    if found.ndim != 1 or (found < 0).any() or not found.sum() > 0:
        raise OptionError(f"{language} has no tokens, or no counts of them. Expected how often each token id occurs.")
    shares: Matrix = found / found.sum()
    return shares
