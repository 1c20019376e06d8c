"""Drawing tables into a folder: the fonts that are needed, titles and descriptions, and nothing that changes from run to run."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal

import polars as pl

from lape.errors import FileError, OptionError
from lape.extras import lacking, need
from lape.figures import fonts
from lape.figures.captions import Facts, origin
from lape.figures.figure import Figure
from lape.figures.names import names
from lape.figures.style import STYLE, Canvas, NothingToDrawError, Paper, Tables, inside
from lape.options import Options
from lape.store import files

INDEX = "figures.json"
"""Beside the figures: their captions, what is missing, and what has to be said."""
_LANGUAGES = ("language", "off", "a", "b")
"""Columns that name languages."""
_NONE = ("all", "none", "mean", "")
"""What stands there for no single language."""


FORMATS = ("pdf", "svg", "png")
_WIDTHS = {"column": 3.3, "page": 6.9}
_NARROWEST, _WIDEST = 2.5, 20.0


@dataclass(frozen=True)
class FigureOptions(Options):
    """What figures are written as, how wide they are, and what they call languages."""

    format: str = "pdf"
    """pdf, svg or png, or several with commas between, such as pdf,png."""
    width: Literal["column", "page"] | float = "column"
    """column (3.3 inches), page (6.9 inches), or a number of inches."""
    language_names: Literal["tags", "english", "own"] = "tags"
    """What languages are called: tags (ja), english (Japanese), or by their own names, in their own letters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [one for one in self.formats if one not in FORMATS]
        if unknown or not self.formats:
            raise OptionError(f"format is {self.format!r}. Expected {', '.join(FORMATS)}, or several: pdf,png.")
        if isinstance(self.width, str) and self.width not in _WIDTHS:
            raise OptionError(f"width is {self.width!r}. Expected column, page or a number of inches, such as 5.")
        if not _NARROWEST <= self.inches <= _WIDEST:
            raise OptionError(f"width is {self.inches:g} inches. Expected {_NARROWEST:g} to {_WIDEST:g}.")

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, each once."""
        return tuple(dict.fromkeys(one.strip() for one in self.format.split(",") if one.strip()))

    @property
    def inches(self) -> float:
        """The width."""
        return _WIDTHS[self.width] if isinstance(self.width, str) else float(self.width)


@dataclass
class Drawing:
    """What was drawn."""

    files: dict[str, list[str]] = field(default_factory=dict)
    """Figure -> file names."""
    titles: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    """What has to be said of figures that were not drawn though their tables are there; also among the notes."""
    notes: list[str] = field(default_factory=list)


_LIBRARY = ("report", "Drawing figures", "matplotlib")


def available() -> bool:
    """Whether matplotlib is there."""
    return lacking(*_LIBRARY) is None


def draw_tables(
    figures: Sequence[Figure],
    tables: Tables,
    folder: Path,
    options: FigureOptions | None = None,
    facts: Mapping[str, Facts] | None = None,
) -> Drawing:
    """Draw those figures whose tables are there and hold something to draw; the same tables give the same bytes. Raises OptionError without matplotlib.

    `facts`: table -> the run.json of where it came from, for captions.
    """
    need(*_LIBRARY)
    import matplotlib as mpl

    options = options or FigureOptions()
    done = Drawing()
    possible = [figure for figure in figures if figure.possible(tables)]
    called, done.notes = names(_languages(figures, tables), options.language_names)
    paper = Paper(options.inches, lambda language: called.get(language, language))
    for form in options.formats:
        with (
            fonts.typeset(called.values()) as families,
            mpl.rc_context({**STYLE, "font.family": families, "pdf.fonttype": 42 if len(families) == 1 else 3}),
        ):
            for figure in possible:
                try:
                    drawn = _drawn(figure, tables, paper)
                except NothingToDrawError:
                    done.empty.append(
                        f"The figure {figure.name} is not drawn: no row of {figure.needs[0]} has a value for it."
                    )
                    continue
                caption = _caption(figure, tables, (facts or {}).get(figure.needs[0], {}))
                save(drawn, folder / f"{figure.name}.{form}", figure.title, caption)
                done.files.setdefault(figure.name, []).append(f"{figure.name}.{form}")
                done.titles[figure.name], done.captions[figure.name] = figure.title, caption
    done.empty = list(dict.fromkeys(done.empty))
    done.notes += done.empty
    return done


def _languages(figures: Sequence[Figure], tables: Tables) -> list[str]:
    """Every language that a table names, each once."""
    found: dict[str, None] = {}
    for figure in figures:
        for table in figure.needs:
            columns = [column for column in _LANGUAGES if table in tables and column in tables[table].columns]
            found |= dict.fromkeys(one for column in columns for one in tables[table][column].drop_nulls())
    return [language for language in found if language not in _NONE]


def _drawn(figure: Figure, tables: Tables, paper: Paper) -> Canvas:
    try:
        return inside(figure.draw(tables, paper))
    except (pl.exceptions.ColumnNotFoundError, KeyError) as error:
        column = str(error).splitlines()[0]
        raise FileError(
            f"The table for the figure {figure.name} lacks the column {column}: an older version of lape wrote it, or another program. Make it again."
        ) from error


def _caption(figure: Figure, tables: Tables, facts: Facts) -> str:
    return " ".join(filter(None, (figure.caption(tables, facts), origin(facts))))


_METADATA = {"pdf": ("Subject", "CreationDate"), "svg": ("Description", "Date"), "png": ("Description", "Software")}
"""Format -> what it calls a caption, and what in it would differ from one day or matplotlib to the next."""


def save(figure: Canvas, path: Path, title: str, caption: str) -> None:
    """Write a figure with its title and caption inside, and no date."""
    form = path.suffix.removeprefix(".")
    said, dated = _METADATA[form]
    held = io.BytesIO()
    figure.savefig(held, format=form, metadata={"Title": title, said: caption, dated: None})
    content = _described(held.getvalue(), title, caption) if form == "svg" else held.getvalue()
    files.write(path, lambda file: file.write_bytes(content))


def _described(svg: bytes, title: str, caption: str) -> bytes:
    """With what a screen reader says: the title, and the caption as its description."""
    text = svg.decode("utf-8")
    start = text.index("<svg ")
    head, body = text[:start], text[start:].replace(f" <title>{escape(title)}</title>\n", "", 1)
    body = body.replace("<svg ", '<svg role="img" aria-labelledby="title description" ', 1)
    said = f'\n <title id="title">{escape(title)}</title>\n <desc id="description">{escape(caption)}</desc>'
    end = body.index(">") + 1
    return (head + body[:end] + said + body[end:]).encode("utf-8")


def write_index(folder: Path, made: Drawing, missing: Mapping[str, str], options: FigureOptions) -> None:
    """Write figures.json."""
    figures = {
        name: {"title": made.titles[name], "files": made.files[name], "caption": caption}
        for name, caption in made.captions.items()
    }
    content = {"figures": figures, "missing": dict(missing), "notes": made.notes, "inches": options.inches}
    files.write_json(folder / INDEX, content)
