"""The pages of the documentation: their code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
_MARK = re.compile(r"<!-- (soak|not run: .+?|run by make serve-test: \w+) -->")
_GLOB = re.compile(r"(?<=\s)[\w./-]+\*[\w./*-]*(?=\s|$)")


def referenced() -> list[str]:
    """Return the dotted names that the reference documents."""
    from reference_pages.public import entries

    return [entry.path for entry in entries().values()]


@cache
def reference() -> dict[str, str]:
    """Generate the pages of the reference: file name -> text. They are not committed."""
    from reference_pages.__main__ import pages

    return pages()


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: str
    line: int
    """Of the fence, counted from 1."""
    language: str
    text: str
    mark: str
    """`soak`, `not run: why`, `run by make serve-test: ENGINE`, or nothing: what the comment before it says."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_code(self) -> bool:
        """Whether it can be run; the others are output and files. Output may begin with the command that wrote it."""
        return self.language in ("python", "sh") or self.text.startswith("$ ")

    def commands(self) -> list[str]:
        """The command lines, continued ones joined, comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language != "sh":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """The fenced blocks of a page, but for the directives of the site."""
    found, mark = [], ""
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "fence" and not token.info.startswith("{"):
            found.append(Block(page, token.map[0] + 1, token.info.strip(), token.content, mark))
        said = _MARK.fullmatch(token.content.strip()) if token.type == "html_block" else None
        mark = said[1] if said else ""
    return tuple(found)


def words(command: str) -> list[str]:
    """A command as the shell takes it apart, patterns of files that are there expanded."""
    expanded = _GLOB.sub(lambda match: " ".join(sorted(glob(match[0]))) or match[0], command)
    return shlex.split(expanded, comments=True)
