"""Fonts for letters that matplotlib's own font lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

BASE = "DejaVu Sans"
"""Comes with matplotlib: Latin with Vietnamese, Greek, Cyrillic, Arabic, Hebrew and others, but no Chinese, Japanese or Korean."""
_PACKAGE = "noto_cjk_sans_jp_regular"
"""Of the extra report: Noto Sans CJK (SIL Open Font License), with Chinese, Japanese and Korean letters."""
_PREFERRED = (
    *("Noto Sans", "Source Han Sans", "WenQuanYi", "Hiragino Sans", "PingFang", "Microsoft YaHei", "Yu Gothic"),
    *("Malgun Gothic", "IPAexGothic", "IPAGothic", "Droid Sans Fallback", "Arial Unicode MS"),
)
"""First words of the names of installed fonts to look into, in this order."""


class Font(NamedTuple):
    """A font file."""

    family: str
    path: str


def missing(text: str) -> set[str]:
    """Return the letters of a text that no font here has."""
    return _cover([text])[1]


@contextmanager
def typeset(texts: Iterable[str]) -> Iterator[list[str]]:
    """Context manager that gives matplotlib's `font.family` for texts: its own font first, then those that have the other letters."""
    from matplotlib.font_manager import fontManager

    before = list(fontManager.ttflist)
    fonts, _ = _cover(texts)
    try:
        for font in fonts:
            if font not in {(entry.name, entry.fname) for entry in before}:
                fontManager.addfont(font.path)
        yield [BASE, *(font.family for font in fonts)]
    finally:
        fontManager.ttflist[:] = before


def _cover(texts: Iterable[str]) -> tuple[list[Font], set[str]]:
    """Return the fonts that texts need besides matplotlib's own, and the letters that none has."""
    import matplotlib as mpl

    own = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    left = {letter for letter in "".join(texts) if letter != "\n" and ord(letter) not in _letters(own)}
    needed = []
    for font in _fallbacks() if left else ():
        covered = {letter for letter in left if ord(letter) in _letters(font.path)}
        if covered:
            needed.append(font)
            left -= covered
    return needed, left


@lru_cache(maxsize=1)
def _fallbacks() -> tuple[Font, ...]:
    """The package's font, then installed ones, upright and of regular weight."""
    from matplotlib.font_manager import fontManager, get_font
    from matplotlib.ft2font import FaceFlags

    spec = find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    packaged = [str(path) for folder in folders for path in sorted(Path(folder).glob("*.otf"))]
    installed = sorted(
        (rank, entry.name, entry.fname)
        for entry in fontManager.ttflist
        for rank, start in enumerate(_PREFERRED)
        if entry.name.startswith(start) and entry.style == "normal" and entry.weight in (400, "normal", "regular")
    )
    variable = FaceFlags.MULTIPLE_MASTERS  # matplotlib draws a font of many weights in its thinnest
    fonts = [Font(name, path) for _, name, path in installed if variable not in get_font(path).face_flags]
    return (*(Font(get_font(path).family_name, path) for path in packaged), *fonts)


@lru_cache(maxsize=64)
def _letters(path: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(path).get_charmap())
