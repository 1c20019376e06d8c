"""Fonts that have every letter that is drawn, as outlines that a PDF can hold."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

BASE = "DejaVu Sans"
"""Comes with matplotlib: Latin with Vietnamese, Greek, Cyrillic, Arabic, Hebrew and others, but no Chinese, Japanese or Korean."""
_PACKAGE = "noto_cjk_sans_jp_regular"
"""Of the extra report: Noto Sans CJK (SIL Open Font License), with Chinese, Japanese and Korean letters."""
_PREFERRED: tuple[str, ...] = (
    "Noto Sans",
    "Source Han Sans",
    "WenQuanYi",
    "Hiragino Sans",
    "PingFang",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "IPAexGothic",
    "IPAGothic",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)
"""Beginnings of the names of installed fonts that are looked into, in this order."""
_FROM_RIGHT = ("Arab", "Hebr", "Syrc", "Thaa", "Nkoo")
_JOINED = ("Deva", "Beng", "Guru", "Gujr", "Orya", "Taml", "Telu", "Knda", "Mlym", "Sinh")
_STACKED = ("Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Mong")
_SHAPED = frozenset((*_FROM_RIGHT, *_JOINED, *_STACKED))
"""Scripts whose letters change or move beside each other, or that run from right to left."""

_WHEN = 3_818_448_000
"""The date of fonts that are made here, in seconds since 1904, always the same."""


class Font(NamedTuple):
    """A font file."""

    family: str
    path: str
    number: int = 0
    """Which of several fonts in the file."""


def shaped(script: str | None) -> bool:
    """Whether what is written in a script is drawn as it should be: matplotlib 3.11 and later shape letters, earlier ones do not."""
    from matplotlib import ft2font

    return script not in _SHAPED or getattr(ft2font, "__libraqm_version__", None) is not None


def missing(text: str) -> set[str]:
    """Letters of a text that no font here has."""
    return _lacking(text).difference(*needed([text]).values())


def _lacking(text: str) -> set[str]:
    base = _letters(_base())
    return {letter for letter in text if letter != "\n" and ord(letter) not in base}


def needed(texts: Iterable[str]) -> dict[Font, set[str]]:
    """The fonts that texts need beside DejaVu Sans, each with its letters."""
    left = _lacking("".join(texts))
    found: dict[Font, set[str]] = {}
    for font in _others():
        here = {letter for letter in left if ord(letter) in _letters(font)} if left else set()
        if here:
            found[font] = here
            left -= here
    return found


def _base() -> Font:
    import matplotlib as mpl

    return Font(BASE, str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))


@lru_cache(maxsize=1)
def _others() -> tuple[Font, ...]:
    """The package's font, then installed ones, upright and of usual weight."""
    from matplotlib.font_manager import fontManager

    found = [
        (rank, one.name, one.fname, getattr(one, "index", 0))
        for one in fontManager.ttflist
        for rank, start in enumerate(_PREFERRED)
        if one.name.startswith(start) and one.style == "normal" and one.weight in (400, "normal", "regular")
    ]
    installed = [Font(name, path, index) for _, name, path, index in sorted(found)]
    return (*_packaged(), *(font for font in installed if not _variable(font)))


def _packaged() -> Iterator[Font]:
    from matplotlib.font_manager import get_font

    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(place).glob("*.otf")):
            yield Font(get_font(path).family_name, str(path))


@contextmanager
def _opened(font: Font) -> Iterator[Any]:
    from fontTools.ttLib import TTFont

    with TTFont(font.path, fontNumber=font.number, lazy=True, recalcTimestamp=False) as file:
        yield file


def _variable(font: Font) -> bool:
    """Fonts of many weights in one are drawn in their thinnest; they are passed over."""
    with _opened(font) as file:
        return "fvar" in file


@lru_cache(maxsize=64)
def _letters(font: Font) -> frozenset[int]:
    with _opened(font) as file:
        return frozenset(file.getBestCmap() or ())


@contextmanager
def typeset(texts: Iterable[str], embedded: bool) -> Iterator[list[str]]:
    """While inside, the families that have the letters of `texts` are known to matplotlib, and are named in order.

    `embedded`: for a PDF. Matplotlib writes PostScript outlines (those of most fonts with Chinese letters) into PDF as if they
    were TrueType, which not every reader shows; their letters that are needed are made TrueType first.
    """
    from matplotlib.font_manager import fontManager

    before = list(fontManager.ttflist)
    families = [BASE]
    with tempfile.TemporaryDirectory() as folder:
        try:
            for font, letters in needed(texts).items():
                use = _truetype(font, letters, Path(folder)) if embedded and _postscript(font) else font
                if use not in {(one.name, one.fname, getattr(one, "index", 0)) for one in before}:
                    fontManager.addfont(use.path)
                families.append(use.family)
            yield families
        finally:
            fontManager.ttflist[:] = before


def _postscript(font: Font) -> bool:
    with _opened(font) as file:
        return "CFF " in file


def _truetype(font: Font, letters: set[str], folder: Path) -> Font:
    """A small TrueType font of some letters, under a family name of its own."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    with _opened(font) as file:
        outlines, names = file.getGlyphSet(), file.getBestCmap()
        chosen = {ord(letter): names[ord(letter)] for letter in sorted(letters)}
        order = [".notdef", *sorted(set(chosen.values()) - {".notdef"})]
        glyphs, widths = {}, {}
        for name in order:
            pen = TTGlyphPen(None)
            outlines[name].draw(Cu2QuPen(pen, max_err=file["head"].unitsPerEm / 1000, reverse_direction=True))
            glyphs[name] = pen.glyph()
            glyphs[name].recalcBounds(None)
            widths[name] = (outlines[name].width, glyphs[name].xMin)
        family = f"{font.family} {hashlib.sha256(repr(sorted(chosen)).encode()).hexdigest()[:8]}"
        made = FontBuilder(file["head"].unitsPerEm, isTTF=True)
        made.updateHead(created=_WHEN, modified=_WHEN)
        made.setupGlyphOrder(order)
        made.setupCharacterMap(chosen)
        made.setupGlyf(glyphs)
        made.setupHorizontalMetrics(widths)
        made.setupHorizontalHeader(ascent=file["hhea"].ascent, descent=file["hhea"].descent)
        made.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family.replace(" ", "")})
        made.setupOS2(sTypoAscender=file["hhea"].ascent, sTypoDescender=file["hhea"].descent)
        made.setupPost()
        made.font.recalcTimestamp = False
    path = folder / f"{family}.ttf"
    made.save(str(path))
    return Font(family, str(path))
