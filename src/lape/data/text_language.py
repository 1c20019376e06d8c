"""Is a text in the language it was given as? Two files that were swapped, and English inside Wikipedia text, are noticed. Needs the extra `lid`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from lape.data.language_id import base
from lape.data.languages import script, tag
from lape.errors import warn
from lape.extras import lacking

SHARE = 0.05
"""Above this share of another language, a text is worth a warning."""
CERTAIN = 0.9
"""Certainty from which a line counts as in another language."""
_SAMPLE = 2**20
"""Characters of a text that lines are taken from: its first."""
_LINES, _SHORTEST, _LONGEST = 300, 30, 500
"""Lines that are looked at, evenly spread; bytes of the shortest; characters of each."""
_FEWEST, _LEAST = 8, 1500
"""Lines, and bytes in them, under which nothing is said."""
_SIGNS = re.compile(r"[{}()\[\];=<>_/\\|#@$%^&*~`+]|\d")
_MOST_SIGNS = 0.05
"""Digits and signs of code among the characters of a line, above which it is no sentence."""
_ALIKE = (
    {"id", "ms"},
    {"zh", "wuu", "yue"},
    {"ar", "ary", "arz"},
    {"da", "no", "nb", "nn"},
    {"bs", "hr", "sr"},
    {"es", "an", "ext", "gl"},
    {"pt", "gl"},
    {"ca", "oc"},
    {"fr", "wa", "gcr", "gcf"},
    {"cs", "sk"},
    {"nl", "af", "fy"},
    {"de", "lb"},
    {"it", "vec", "lij"},
    {"ku", "sdh"},
    {"uz", "uzs"},
    {"zu", "xh"},
    {"st", "nso"},
    {"en", "pcm"},
    {"bg", "mk"},
    {"tr", "az", "crh"},
    {"hi", "mr", "ne", "gom", "sa"},
)
"""Languages of which a text may be taken for one another by the line: one given as the other is not warned of."""


class Sample:
    """The beginning of documents that pass through, kept for a look at what they hold."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._room = _SAMPLE

    def watch(self, documents: Iterator[Iterator[str]]) -> Iterator[Iterator[str]]:
        """The documents as they are."""
        return map(self._watch, documents)

    def _watch(self, pieces: Iterator[str]) -> Iterator[str]:
        for piece in pieces:
            if self._room > 0:
                self._held.append(piece[: self._room])
                self._room -= len(piece)
            yield piece

    def sentences(self) -> list[str]:
        """Lines that are text, evenly spread; none where most of the characters stand in lines that are not, as those of code."""
        stripped = (line.strip()[:_LONGEST] for piece in self._held for line in piece.split("\n"))
        lines = [line for line in stripped if len(line.encode("utf-8", "replace")) >= _SHORTEST]
        some = lines[:: max(1, len(lines) // _LINES)]
        kept = [line for line in some if len(_SIGNS.findall(line)) <= _MOST_SIGNS * len(line)]
        return kept if 2 * sum(map(len, kept)) > sum(map(len, some)) else []


def warn_of_other_language(language: str, sample: Sample, name: str) -> None:
    """Warn where a text seems to be in another language than it was given as, or to hold more than a twentieth of another.

    `name`: what the text is called. Nothing is said of short texts, of code, of languages that the identifier does not know or takes for one
    another, of private tags (fr-x-mine) and of other scripts than the usual (hi-Latn), or where py3langid is not installed.
    """
    code = base(language)
    if lacking("lid", "Telling languages apart", "py3langid") or "-x-" in tag(language):
        return
    if code != "zh" and script(language) != script(code):
        return
    lines = sample.sentences()
    if len(lines) < _FEWEST or sum(len(line.encode("utf-8", "replace")) for line in lines) < _LEAST:
        return
    classify, known = _identifier()
    if code not in known:
        return
    alike = {code, "zxx"}.union(*(group for group in _ALIKE if code in group))  # zxx: no language
    own = 0
    others: Counter[str] = Counter()
    for line in lines:
        found, certainty = classify(line)
        if found in alike:
            own += len(line)
        elif certainty >= CERTAIN:
            others[found] += len(line)
    total = sum(map(len, lines))
    if not others or others.most_common(1)[0][1] <= SHARE * total:
        return
    other, size = others.most_common(1)[0]
    if size > own:
        warn(
            f"The text for {language} ({name}) looks like {other}: {size / total:.0%} of what was looked at is {other} with {CERTAIN:.0%} certainty or more, "
            f"and {own / total:.0%} is {code}. Were two texts swapped? Give each under its own language ({other}=PATH), then run this again."
        )
    else:
        warn(
            f"About {size / total:.0%} of the text for {language} ({name}) looks like {other}, with {CERTAIN:.0%} certainty or more. Neurons of {other} will "
            f"count as {language}'s. Take that part out of the text, then run this again."
        )


@cache
def _identifier() -> tuple[Callable[[str], tuple[str, float]], frozenset[str]]:
    """What tells the language of a line among all that it knows, and these."""
    import py3langid.langid as module

    inner: Any = module._load_identifier(norm_probs=True)
    return inner.classify, frozenset(inner.labels)
