"""How far the language identifiers themselves can be trusted: on real text as short as the answers, and on mixed text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from lape.data.language_id import Identifier, base

IDENTIFICATION = {
    **dict.fromkeys(("identifier", "language", "mixed_with"), pl.String),
    **dict.fromkeys(("characters", "texts"), pl.Int64),
    **dict.fromkeys(("named", "named_other", "unknown"), pl.Float64),
}
"""A row per `identifier`, `language` and `mixed_with`, the language that the second half of each text is in, or null: `characters` and number of
`texts`; the shares (0 to 1) of them that are called the language (`named`), another (`named_other`) or none (`unknown`), null where no line is long
enough.
"""
_MOST = 100
"""Texts of each kind."""


def identification(
    identifiers: Mapping[str, Identifier], lines: Mapping[str, Sequence[str]], characters: Mapping[str, int]
) -> pl.DataFrame:
    """What each identifier calls lines cut to so many characters, whole or with a second half in another language.

    `lines`: language -> lines, line i saying the same in every language. `characters`: language -> length of its texts.
    """
    rows = []
    for name, identify in identifiers.items():
        for language in lines:
            for other in (None, *(other for other in lines if other != language)):
                texts = _texts(lines, language, other, characters)
                found = [guess.language for guess in identify(texts)]
                own, unknown = found.count(base(language)), found.count(None)
                counts = {"named": own, "named_other": len(found) - own - unknown, "unknown": unknown}
                rows.append(
                    {
                        "identifier": name,
                        "language": language,
                        "mixed_with": other,
                        "characters": characters[language],
                        "texts": len(texts),
                        **{name: count / len(found) if found else None for name, count in counts.items()},
                    }
                )
    return pl.DataFrame(rows, schema=IDENTIFICATION)


def _texts(
    lines: Mapping[str, Sequence[str]], language: str, other: str | None, characters: Mapping[str, int]
) -> list[str]:
    own = [line[: characters[language]] for line in lines[language] if len(line) >= characters[language]][:_MOST]
    if other is None:
        return own
    half = characters[language] // 2
    second = [line[: characters[other] // 2] for line in lines[other] if len(line) >= characters[other] // 2]
    return [f"{a[:half]} {b}" for a, b in zip(own, second, strict=False)]
