"""Write docs/claims-ledger.md from docs/claims-ledger.toml and the committed tables: `make ledger`.

The TOML file has an entry for each result: the page, what the page says with a field for each figure, and the table, rows and columns that the figures
come from. Figures are read from the tables, put into the fields, and what results has to stand on the page. Each figure of the pages that the file
lists has to be covered so, or to be excused by a pattern with a reason.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cache
from math import copysign
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

import polars as pl

ROOT = Path(__file__).parents[1]
ENTRIES = ROOT / "docs/claims-ledger.toml"
PAGE = ROOT / "docs/claims-ledger.md"

STANDINGS = re.compile(r"exploratory|confirmatory|withdrawn|replaced-by-[\w.-]+")
_NUMBER = r"(?<![\w.\-^])[−+-]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?!\w|[.,]\d)"
_UNIT = r"(?=\s?(?:%|(?:nats|ms|s|min|GiB)\b))"
_NOT_SAID = re.compile(r"^ *```\w[^\n]*\n.*?^ *```|<!--.*?-->|`[^`\n]+`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
"""Code, comments and the targets of links."""


@dataclass(frozen=True)
class Source:
    """Where results come from: what was run, and when its tables were first committed."""

    command: str
    date: date
    standing: str
    tables: str = ""
    """Folder of the study; nothing where the figures are in no table of the repository."""
    page: str = ""
    """Page of the study, from docs/."""


@dataclass(frozen=True)
class Result:
    """A result on a page, and where it comes from."""

    page: str
    source: str
    says: str = ""
    """Text of the page, in which a figure of a table is a field, as in `{own:.2f}`."""
    table: str = ""
    """Name of a table of the source, `file.json/key`, `reread.NAME` for a function of docs/studies/reread.py with its arguments, or a page of output."""
    row: str = ""
    """Which rows of the table, as in SQL: `language = 'zh'`."""
    value: str = "*"
    """Columns, as in SQL: `own, others / own as ratio`, `max(own) as own`."""
    by: str = ""
    """A column whose values name the rows: fields are then `{zh[own]:.2f}`."""
    each: str = ""
    """Set for each row alone, joined by `join`, and put into the field `{}` of `says`."""
    join: str = " | "
    holds: str = ""
    """What has to be true of the rows, as in SQL, where the page gives a bound: then all of `says` is covered."""
    lines: str = ""
    """A function of docs/studies/reread.py, with its arguments, each of whose lines is on the page."""
    after: str = ""
    """Text of the page after which this one comes, up to the next heading; where the same text stands twice."""
    standing: str = ""
    date: date | None = None
    note: str = ""


@dataclass(frozen=True)
class Excuse:
    """Numbers that were not measured."""

    why: str
    patterns: Sequence[str]
    page: str = ""
    """The only page on which this excuses; nothing for all."""

    def spans(self, page: str, text: str) -> list[tuple[int, int]]:
        """From where to where a page holds what is excused."""
        if self.page not in ("", page):
            return []
        return [match.span() for pattern in self.patterns for match in re.finditer(pattern, text)]


@dataclass(frozen=True)
class Book:
    """All that the TOML file says."""

    pages: tuple[str, ...]
    sources: dict[str, Source]
    results: tuple[Result, ...]
    excused: tuple[Excuse, ...]


class Wrong(Exception):
    """What an entry says is not so."""


class Figure(float):
    """A number that knows formats of the pages: `~` before one leaves out the 0 before the point, `~` and `−` set the typographic minus, and
    `s` for `f` gives three decimals where two would be 0.00."""

    def __format__(self, spec: str) -> str:
        plain = spec.lstrip("~−")
        if plain.endswith("s"):
            digits = int(plain[-2])
            plain = f"{plain[:-2]}{digits + (round(abs(self), digits) == 0)}f"
            self = Figure(self + copysign(1e-9, self))  # what was printed is rounded already: .075 is half, and goes up
        text = float.__format__(self, plain)
        if spec.startswith("~"):
            text = re.sub(r"(?<!\d)0(?=\.)", "", text)
        return text.replace("-", "−") if plain != spec else text


def read(path: Path = ENTRIES) -> Book:
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    for one in given["result"]:
        unknown = set(one) - {field.name for field in fields(Result)}
        if unknown:
            raise Wrong(f"{one}: no such key: {', '.join(sorted(unknown))}")
    sources = {name: Source(**one) for name, one in given["source"].items()}
    results = tuple(Result(**one) for one in given["result"])
    for result in results:
        if result.source not in sources:
            raise Wrong(f"{result.page}: no source {result.source!r}; there are {', '.join(sources)}")
        if not STANDINGS.fullmatch(standing(result, sources)):
            raise Wrong(f"{result.page}: standing {standing(result, sources)!r}; {STANDINGS.pattern}")
        if bool(result.says) == bool(result.lines):
            raise Wrong(f"{result.page}: an entry has either `says` or `lines`: {result}")
    return Book(tuple(given["pages"]), sources, results, tuple(Excuse(**one) for one in given["excused"]))


def standing(result: Result, sources: dict[str, Source]) -> str:
    return result.standing or sources[result.source].standing


@cache
def reread() -> ModuleType:
    """What computes further tables from those of the studies."""
    spec = importlib.util.spec_from_file_location("reread", ROOT / "docs/studies/reread.py")
    if spec is None or spec.loader is None:
        raise Wrong("docs/studies/reread.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def called(name: str) -> Any:
    """What a function of docs/studies/reread.py gives, named with its arguments after it."""
    function, *given = name.split()
    return getattr(reread(), function)(*given)


def place(result: Result, sources: dict[str, Source]) -> str:
    """The table of a result, as the ledger names it; nothing where there is none."""
    if result.lines or result.table.startswith("reread."):
        return "docs/studies/reread.py " + (result.lines or result.table.removeprefix("reread."))
    if not result.table or result.table.endswith(".md"):
        return result.table
    folder, file, key = sources[result.source].tables, *result.table.partition("/")[::2]
    return f"{folder}/{file} {key}" if key else f"{folder}/tables/{file}.parquet"


@cache
def frame(path: str) -> pl.DataFrame:
    file, _, key = path.partition(" ")
    if file.endswith(".md"):
        return printed(file)
    if file == "docs/studies/reread.py":
        made: pl.DataFrame = called(key)
        return made
    if not (ROOT / file).is_file():
        raise Wrong(f"no table {file}")
    if not key:
        return pl.read_parquet(ROOT / file)
    return pl.DataFrame(json.loads((ROOT / file).read_text(encoding="utf-8"))[key], infer_schema_length=None)


def where(result: Result) -> str:
    return f" where {result.row}" if result.row else ""


def printed(file: str) -> pl.DataFrame:
    """The table that a page shows as the output of `lape demo`: a row per language, and the largest draw that stands in brackets as a column of its own."""
    header = re.search(r"^ +size .+$", text_of(file), re.MULTILINE)
    if header is None:
        raise Wrong(f"{file} shows no table with the column 'size'")
    names, found = header[0].replace("95 % interval", "low high").split(), []
    for line in text_of(file)[header.end() :].partition("```")[0].splitlines():
        language, *cells = re.findall(r"\S+(?: \(\S+\))?", line.replace("…", "")) or [""]
        if len(cells) == len(names):
            row: dict[str, Any] = {"language": language}
            for name, given in zip(names, cells, strict=True):
                value, *largest = re.findall(r"-?[\d.]+", given)
                row |= {name: float(value)} | {f"{name}_largest": float(one) for one in largest}
            found.append(row)
    return pl.DataFrame(found)


def chosen(result: Result, sources: dict[str, Source]) -> list[dict[str, Any]]:
    """The rows of the table that the result is about."""
    found = frame(place(result, sources)).sql(f"select {result.value} from self{where(result)}").rows(named=True)
    if not found or (len(found) > 1 and not (result.each or result.by or result.holds)):
        raise Wrong(f"{result.page}: {len(found)} rows of {result.table} where {result.row!r}: {result.says}")
    return [{name: Figure(one) if isinstance(one, float) else one for name, one in row.items()} for row in found]


def pieces(result: Result, sources: dict[str, Source]) -> list[tuple[str, str]]:
    """What the page has to say, in pieces: text, and figures of the table as they are to be set."""
    if not result.table:
        return [("", result.says.strip())]
    rows = chosen(result, sources)
    if result.holds:
        true = frame(place(result, sources)).sql(f"select ({result.holds}) as holds from self{where(result)}").item()
        if not true:
            raise Wrong(f"{result.page} says {result.says!r}, but not {result.holds} in {result.table}")
        return [("", result.says.strip())]
    given: Mapping[str, Any] = {str(row[result.by]): row for row in rows} if result.by else rows[0]
    found = []
    for literal, field, spec, _ in Formatter().parse(result.says):
        value = ""
        if field == "":
            value = result.join.join(result.each.format(**row) for row in rows)
        elif field is not None:
            try:
                name, _, column = field.rstrip("]").partition("[")
                value = format(given[name][column] if column else given[name], spec or "")
            except KeyError as error:
                raise Wrong(f"{result.page}: no {error} in {result.table}, which has {', '.join(given)}") from None
            except TypeError:
                raise Wrong(f"{result.page} says {result.says!r}, but {field} is empty in {result.table}") from None
        found.append((literal, value))
    return found


def said(result: Result, sources: dict[str, Source]) -> list[list[tuple[str, str]]]:
    """The texts of a result, each in pieces."""
    if not result.lines:
        return [pieces(result, sources)]
    return [[("", one)] for one in called(result.lines) if not one.startswith("|--")]


def pattern(parts: Sequence[tuple[str, str]], value: str | None = None) -> str:
    """The text as a regular expression, whatever its line breaks, with a group for each figure; it begins and ends where a word or number does."""

    def flowing(text: str) -> str:
        return r"\s+".join(re.escape(one) for one in re.split(r"\s+", text))

    whole = "".join(literal + figure for literal, figure in parts)
    inside = "".join(flowing(literal) + f"({value or flowing(figure)})" for literal, figure in parts)
    return r"(?<![\w.])" * (whole[0] not in "|*({") + inside + r"(?!\w|\.\d)" * whole[-1].isalnum()


def covered(result: Result, sources: dict[str, Source], text: str) -> Iterator[tuple[int, int]]:
    """From where to where the page holds the figures of a result; Wrong where it does not say what the table says."""
    start, end = 0, len(text)
    if result.after:
        start = text.find(result.after)
        if start < 0:
            raise Wrong(f"{result.page} does not say {result.after!r}")
        heading = text.find("\n## ", start)
        end = heading if heading > 0 else end
    for parts in said(result, sources):
        found = list(re.finditer(pattern(parts), text[start:end]))
        if len(found) != 1:
            whole = "".join(literal + figure for literal, figure in parts)
            like = re.search(pattern(parts, r"[^|\n]*?"), text[start:end]) if len(parts) > 1 else None
            instead = f"; the page says {like[0]!r}" if like else ""
            raise Wrong(f"{result.page} says {len(found)} times and not once: {whole!r}{instead}")
        for group, (_, figure) in enumerate(parts, 1):
            if figure:
                yield start + found[0].start(group), start + found[0].end(group)


def figures(text: str) -> Iterator[tuple[int, int]]:
    """From where to where a page holds measured figures: numbers in the body of tables, but for their first column, and in output; in prose
    numbers with a decimal point, and those followed by % or a unit. Code and the targets of links are left out."""
    shown = _NOT_SAID.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    start, output, body = 0, False, False
    for line in shown.splitlines(keepends=True):
        stripped = line.strip()
        table = stripped.startswith("|") and not output
        if stripped.startswith("```"):
            output = not output
        elif table and not body:
            body = stripped.startswith("|--")
        elif not stripped.startswith("#"):
            skip = line.find("|", line.find("|") + 1) if table else 0
            for match in re.finditer(_NUMBER, line[skip:]):
                after = line[skip + match.end() :] or "\n"
                if table or output or "." in match[0] or re.match(_UNIT, after):
                    yield start + skip + match.start(), start + skip + match.end()
        body = body and table
        start += len(line)


def check(page: str, text: str, book: Book) -> list[str]:
    """What is wrong with a page: what it should say and does not, or else the figures that no entry covers and no pattern excuses."""
    spans: list[tuple[int, int]] = []
    wrong = []
    for result in book.results:
        if result.page == page:
            try:
                spans += covered(result, book.sources, text)
            except Wrong as error:
                wrong.append(str(error))
    if wrong or page not in book.pages:
        return wrong
    for one in book.excused:
        spans += one.spans(page, text)
    for start, end in figures(text):
        if not any(first <= start and end <= last for first, last in spans):
            line = text.count("\n", 0, start) + 1
            shown = text.splitlines()[line - 1].strip()
            wrong.append(f"{page}:{line}: {text[start:end]} is not in docs/claims-ledger.toml: {shown[:100]!r}")
    return wrong


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def in_short(result: Result, sources: dict[str, Source]) -> str:
    """What a result says, as a cell of the ledger."""
    texts = ["".join(literal + figure for literal, figure in parts) for parts in said(result, sources)]
    rows = [re.sub(r"\s*\|\s*", " · ", " ".join(one.split()).strip("| ")) for text in texts for one in lines_of(text)]
    return f"{len(rows)} rows, the last: {rows[-1]}" if len(rows) > 1 else rows[0]


def lines_of(text: str) -> list[str]:
    """The rows of a table, or a text that is none."""
    return text.splitlines() if text.startswith("|") else [text]


def cell(result: Result, sources: dict[str, Source]) -> list[str]:
    source = sources[result.source]
    values = "" if result.value == "*" else result.value
    return [
        in_short(result, sources) + (f" *({result.note})*" if result.note else ""),
        f"`{place(result, sources)}`" if place(result, sources) else "–",
        "; ".join(f"`{one}`" for one in (result.row, values, result.holds) if one)
        or ("all" if place(result, sources) else "–"),
        f"[{result.source}](#{result.source.replace('.', '')})",
        str(result.date or source.date),
        standing(result, sources),
    ]


def page(book: Book) -> str:
    """The text of docs/claims-ledger.md."""
    lines = [
        "# A ledger of what was measured",
        "<!-- made by `make ledger` from claims-ledger.toml and the tables: change those, not this -->",
        "Every measured figure of README and of the pages that say what was found: where it stands, the table and the rows it comes from, the command "
        "that made it, when, and what it is worth. `make ledger` reads the figures from the tables again; a test fails where a page says another, or one "
        "that is not here.",
        "*Exploratory*: something like the answer was known when the claim was written down, or nothing was claimed before. *Confirmatory*: a study run "
        "to repeat a result on other text or another model. *Withdrawn*: the figure is right, the sentence that was drawn from it is not "
        "([why](results.md#withdrawn)). *Replaced-by-*: what is measured instead. Where there is no table, the figures are what "
        "the command printed when it was last run. A table's date is that of its first commit.",
        "What counts as a measured figure: numbers in the body of tables, but for the first column, and in shown output; in prose numbers with a decimal "
        "point, and those before % or a unit. "
        + "These pages are held to it whole: "
        + ", ".join(book.pages)
        + ". Excused there are:",
        "\n".join(f"- {one.why}" for one in book.excused),
        "## Commands",
    ]
    lines.append("As they were given; a later version may have other options.")
    for name, source in book.sources.items():
        link = f" Of [this study]({source.page}), whose tables are in `{source.tables}`." if source.page else ""
        lines += [f"### {name}", f"```\n{source.command}\n```", f"{source.date}, {source.standing}.{link}"]
    for name in dict.fromkeys(result.page for result in book.results):
        rows = [cell(result, book.sources) for result in book.results if result.page == name]
        head = ["result", "table", "rows; columns", "command", "date", "standing"]
        lines += [
            f"## {name}",
            "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in (head, ["---"] * 6, *rows)),
        ]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Write the page, where all is right."""
    book = read()
    pages = dict.fromkeys([*book.pages, *(result.page for result in book.results)])
    wrong = [one for name in pages for one in check(name, text_of(name), book)]
    if wrong:
        sys.exit("\n".join(wrong))
    PAGE.write_text(page(book), encoding="utf-8")


if __name__ == "__main__":
    main()
