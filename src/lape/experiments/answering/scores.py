"""How much of an answer is right: exact match, F1 and ROUGE-L over tokens that need no spaces. Needs the extra `eval`."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from lape.extras import need

LIBRARY = ("eval", "Comparing answers", "rouge_score")
"""Its extra, what needs it, and its module: `lape.extras.need`."""
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "YI SYLLABLE")
"""How the Unicode names of letters begin whose scripts put no spaces between words."""


class Overlap(NamedTuple):
    """Each from 0 to 1, the best over the accepted answers."""

    exact: float
    f1: float
    rouge_l: float


def overlap(answer: str, accepted: Sequence[str]) -> Overlap:
    """How far an answer is one of those accepted.

    exact (ours): the same tokens in the same order. F1: of token precision and recall, repeated tokens counted as often as both
    have them. ROUGE-L: F1 of the longest common subsequence of tokens (Lin 2004), both by the library rouge-score. Tokens are
    ours (`tokens`), so English articles count, unlike in SQuAD's own script. Raises OptionError without the library.
    """
    own = tokens(answer)
    exact = float(bool(own) and any(own == tokens(one) for one in accepted))
    found = _scorer().score_multi(list(accepted), answer)
    return Overlap(exact, float(found["rouge1"].fmeasure), float(found["rougeL"].fmeasure))


def tokens(text: str) -> list[str]:
    """Words without punctuation, case folded, width and compatibility forms made one (NFKC); where a script puts no spaces
    between words, each character with its marks is a token (as MLQA's script does for Chinese; Lewis et al. 2020).
    """
    found: list[str] = []
    joins = False
    for character in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        kind = unicodedata.category(character)[0]
        if kind not in "LMN":
            joins = False
        elif kind == "M" and found:
            found[-1] += character
        elif _alone(character):
            found.append(character)
            joins = False
        elif joins:
            found[-1] += character
        else:
            found.append(character)
            joins = True
    return found


@cache
def _alone(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)


@cache
def _scorer() -> Any:
    need(*LIBRARY)
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], tokenizer=SimpleNamespace(tokenize=tokens))
