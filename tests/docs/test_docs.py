"""The site: it builds without a warning, asks no other machine for anything, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from cyclopts.docs.markdown import generate_markdown_docs
from markdown_it import MarkdownIt

from lape.cli import app
from support.pages import PAGES, ROOT, reference

GENERATED = ROOT / "docs/reference"
WRITTEN = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts and not path.is_relative_to(GENERATED)
)
ELSEWHERE = re.compile(r"(https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` writes."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "reference_pages"], cwd=ROOT / "docs", check=True)
    recipe = re.search(r"-m sphinx (.+) docs docs/_build/html", (ROOT / "Makefile").read_text())[1]
    assert "-W" in recipe.split(), "warnings are errors"
    command = [sys.executable, "-m", "sphinx", *recipe.split(), "-d", folder / "trees", "docs", folder / "html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


class Fetched(HTMLParser):
    """What a browser fetches when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found += [given.get("src", ""), given.get("srcset", "")]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index", "search"):
            self.found.append(given.get("href", ""))
        self.found += re.findall(r"url\(['\"]?([^)'\"]+)", given.get("style", ""))


def test_the_site_asks_no_other_machine(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert any(one.endswith(".css") or ".css?" in one for one in parser.found), page
        assert not [one for one in parser.found if ELSEWHERE.match(one)], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"@import[^;]*//|url\(['\"]?(https?:)?//", text), sheet


def test_what_a_browser_would_fetch_is_seen() -> None:
    parser = Fetched()
    parser.feed(
        '<script src="https://a/x.js"></script><link rel="stylesheet" href="//b/x.css"><a href="https://c">c</a>'
    )
    parser.feed(
        '<img srcset="http://d/x.png" src="x.png"><link rel="canonical" href="https://e"><p style="background: url(https://f)">'
    )
    assert [one for one in parser.found if ELSEWHERE.match(one)] == [
        "https://a/x.js",
        "//b/x.css",
        "http://d/x.png",
        "https://f",
    ]


def inline(page: str) -> list[str]:
    """The code inside the lines of a page."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    return [child.content for token in tokens for child in token.children or [] if child.type == "code_inline"]


def test_verbs_and_options_in_the_text_are_those_of_the_command_line() -> None:
    sections = generate_markdown_docs(app()).split("\n## lape ")[1:]
    known = {one.split()[0]: {"--config", *re.findall(r"--[\w-]+", one)} for one in sections}
    everyones = set().union(*known.values(), {"--flips"})  # of a benchmark
    seen = 0
    for page, code in ((name, code) for name in PAGES for code in inline(name)):
        options = set(re.findall(r"(?<!\S)--[\w-]+", code))
        verb = re.match(r"lape (\w+)", code)
        if verb:
            assert verb[1] in known, f"{page}: {code}"
            assert options <= known[verb[1]], f"{page}: {code}"
        elif code.startswith("--"):
            assert options <= everyones, f"{page}: {code}"
        seen += len(options)
    assert seen > 40


def slug(heading: str) -> str:
    """How GitHub and the site name a heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def read_page(path: Path) -> str | None:
    """Text of a page in the repository or of the generated reference; None where there is no such page."""
    if path.parent == GENERATED:
        return reference().get(path.name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def anchors(text: str) -> set[str]:
    tokens = MarkdownIt().parse(text)
    titles = [
        "".join(child.content for child in after.children or [])
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]
    return {slug(title) for title in titles}


def links(page: str) -> list[str]:
    found = []
    for token in MarkdownIt().enable("table").parse(read_page(ROOT / page) or ""):
        for child in token.children or []:
            found += [child.attrs[name] for name in ("href", "src") if name in child.attrs]
    return [str(link) for link in found]


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", *WRITTEN])
def test_links_lead_to_files_and_headings_that_are_there(page: str) -> None:
    for link in links(page):
        if re.match(r"\w+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert page.startswith("docs/") or target.parent != GENERATED, f"{page}: {link} leads nowhere in the repository"
        assert target.exists() or read_page(target) is not None, f"{page}: {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link}"
        assert not anchor or anchor in anchors(read_page(target) or ""), f"{page}: {link}"


def test_the_reference_links_to_pages_and_files_that_are_there() -> None:
    seen = 0
    for name in reference():
        for link in links(f"docs/reference/{name}"):
            path, _, anchor = link.partition("#")
            target = (GENERATED / path).resolve() if path else GENERATED / name
            seen += 1
            if not link.startswith("https://"):
                assert target.exists() or read_page(target) is not None, f"{name}: {link}"
                assert not anchor or anchor in anchors(read_page(target) or ""), f"{name}: {link}"
    assert seen > 500


def test_there_are_links_to_check() -> None:
    assert sum(len(links(page)) for page in PAGES) > 50


@pytest.mark.parametrize("name", ["entropy.png", "controls.svg"])
def test_pictures_are_small_and_shown(name: str) -> None:
    assert 0 < (ROOT / "docs/pictures" / name).stat().st_size < 100_000
    assert f"(pictures/{name})" in (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
