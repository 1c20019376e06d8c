"""Write docs/reference from signatures, docstrings and the help of the command line: `make reference`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from unittest.mock import patch

import griffe
from cyclopts.docs.markdown import generate_markdown_docs

from reference_pages.names import EXPERIMENTS, OPTIONS, PAGES, TOP
from reference_pages.public import ROOT, Entry, asked, at, entries, package, text_of
from reference_pages.shown import described, linked, one_line, table

FOLDER = ROOT / "docs" / "reference"
HEAD = "<!-- made by `make reference` from the code: change that, not this -->"


def page_of(name: str, title: str, about: str, before: Sequence[str] = ()) -> str:
    """A page of names: what it is, an index, and each name."""
    here = [one for one in entries().values() if one.page == name]
    listed_above = "\n".join(before)
    rows = [
        (f"[`{one.name}`](#{one.anchor})", first_sentence(one))
        for one in here
        if f"(#{one.anchor})" not in listed_above
    ]
    opening = Entry("", package(), name, "")
    parts = [
        f"# {title}",
        HEAD,
        linked(about, opening),
        *before,
        table(("name", ""), rows),
        *(part for one in here for part in described(one)),
    ]
    return "\n\n".join(part for part in parts if part).rstrip() + "\n"


def first_sentence(entry: Entry) -> str:
    """What a name is, in short."""
    text = one_line(entry.thing.docstring.value.partition("\n\n")[0]) if entry.thing.docstring else ""
    return linked(re.split(r"(?<=\.) (?=[A-Z`(])", text)[0], entry)


def questions() -> str:
    """What each experiment asks, and its functions."""
    rows = []
    for name in text_of(EXPERIMENTS):
        record = at(f"lape.experiments.{name}.EXPERIMENT").value
        given = {one.name: one.value for one in record.arguments if isinstance(one, griffe.ExprKeyword)}
        things = [entries()[one.path] for _, one in asked(name)]
        links = [
            f"[`{one.name}`]({'' if one.page == 'experiments' else one.page + '.md'}#{one.anchor})"
            for one in things
            if one.thing.is_function
        ]
        rows.append((f"`{name}`", ast.literal_eval(str(given["about"])), ", ".join(links)))
    return table(("experiment", "", "functions"), rows)


def command_line() -> str:
    """Every verb, as its own help says it."""
    from lape.cli import app

    with patch.object(sys, "argv", ["lape"]):  # usage lines begin with what was started
        verbs = generate_markdown_docs(app(), generate_toc=False, no_root_title=True, heading_level=2)
    verbs = verbs.replace("(#lape-install-completion)", "(#lape---install-completion)")  # as a host calls that heading
    about = "`lape --help` lists the verbs, `lape VERB --help` says all that one takes, and so does this page."
    return f"# The command line\n\n{HEAD}\n\n{about}\n\n{verbs.strip()}\n"


def index() -> str:
    """The page that leads to the others."""
    about = {"cli": ("The command line", "Every verb and option."), "options": OPTIONS} | PAGES
    opening = Entry("", package(), "index", "")
    names = ", ".join(f"[`{one.name}`]({TOP}.md#{one.anchor})" for one in entries().values() if one.page == TOP)
    lines = [f"- [Python: `import lape`]({TOP}.md): {names}."]
    lines += [f"- [{one[0]}]({name}.md): {linked(one[1], opening)}" for name, one in about.items()]
    return f"# Reference\n\n{HEAD}\n\n" + "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every page of docs/reference, by the name of its file."""
    top = "These names are all that `lape` itself has; the rest lies in its modules."
    found = {
        "index": index(),
        TOP: page_of(TOP, "Python: `import lape`", top),
        "cli": command_line(),
        "options": page_of("options", *OPTIONS),
    }
    for name, (title, about, _) in PAGES.items():
        found[name] = page_of(name, title, about, [questions()] if name == "experiments" else [])
    return {f"{name}.md": text for name, text in found.items()}


def main() -> None:
    """Write the pages anew, and remove those that are none any more."""
    written = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
