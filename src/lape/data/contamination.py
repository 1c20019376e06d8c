"""Does a text hold another language? English inside Wikipedia text is a known trap. Needs the extra `lid`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lape.data.language_id import lingua_languages
from lape.data.texts import DocumentRule, Source, preview
from lape.extras import lacking

SHARE = 0.05
"""Above this share of another language, a corpus is worth a warning."""
_SHORTEST, _LONGEST, _MOST = 30, 2000, 300


def available() -> bool:
    """Whether the language identifier is installed."""
    return lacking("lid", "Telling languages apart", "lingua") is None


def foreign_shares(lines: Iterable[str], language: str, candidates: Iterable[str]) -> dict[str, float] | None:
    """Share of the characters of `lines` that each other candidate language seems to hold, largest first.

    Languages are told apart among `candidates`, `language` and English. None where the identifier does not know `language`.
    """
    from lingua import LanguageDetectorBuilder

    known = lingua_languages()
    base = language.split("-")[0]
    wanted = {base, "en", *(code.split("-")[0] for code in candidates)}
    if base not in known:
        return None
    chosen = [known[code] for code in sorted(wanted) if code in known]
    if len(chosen) < 2:
        return {}
    detector: Any = LanguageDetectorBuilder.from_languages(*chosen).build()
    sizes: Counter[str] = Counter()
    for line in lines:
        found = detector.detect_language_of(line)
        if found is not None:
            sizes[found.iso_code_639_1.name.lower()] += len(line)
    total = sum(sizes.values()) or 1
    return {code: size / total for code, size in sizes.most_common() if code != base}


def warnings(texts: Mapping[str, Source], *, rule: DocumentRule = "file", column: str = "text") -> list[str]:
    """One sentence for each corpus that seems to hold more than a twentieth of another language."""
    found = []
    for language, source in texts.items():
        pieces = preview(source, rule=rule, column=column)
        stripped = (line.strip()[:_LONGEST] for piece in pieces for line in piece.split("\n"))
        lines = [line for line in stripped if len(line) >= _SHORTEST]
        shares = foreign_shares(lines[:: max(1, len(lines) // _MOST)], language, texts)
        for other, share in (shares or {}).items():
            if share > SHARE:
                found.append(
                    f"About {share:.0%} of the text for {language} seems to be {other}. Neurons of {other} will count as {language}'s; clean the text first."
                )
    return found
