"""The generated reference holds every public name, verb and option."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from itertools import pairwise
from pkgutil import resolve_name

from markdown_it import MarkdownIt

import lape
from lape.cli import app
from lape.detect import DETECTORS
from lape.experiments import NAMES
from support.pages import PAGES, ROOT, reference, referenced

HERE = referenced()


def test_every_public_name_is_there() -> None:
    public = {f"lape.{name}" for name in lape.__all__} | {
        f"{detector.find.__module__}.{detector.find.__name__}" for detector in DETECTORS.values()
    }
    for experiment in NAMES:
        offered = getattr(import_module(f"lape.experiments.{experiment}"), "__all__", ())
        public |= {f"lape.experiments.{experiment}.{name}" for name in offered if name != "EXPERIMENT"}
    public -= {"lape.experiments.perplexity.perplexity", "lape.experiments.forcing.forcing"}  # at top level
    assert len(public) > 35
    assert not public - set(HERE)


def test_every_dataclass_of_options_is_there_with_its_fields() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src/lape").rglob("*.py"))
    named = {name for text in sources for name in re.findall(r"^class ([A-Z]\w+Options)\b", text, re.MULTILINE)}
    assert len(named) > 25
    assert named <= {one.rpartition(".")[2] for one in HERE}
    assert "| `rate` | `float` | `0.01` | Share of all neurons that is kept" in reference()["options.md"]


def test_names_can_be_imported_from_where_the_pages_say() -> None:
    assert len(HERE) == len(set(HERE)) > 100
    assert all(resolve_name(path) is not None for path in HERE)


def test_every_heading_has_an_anchor_of_its_own() -> None:
    assert len(reference()) > 10
    for page, text in reference().items():
        tokens = MarkdownIt().parse(text)
        headings = [after.content.lower() for token, after in pairwise(tokens) if token.type == "heading_open"]
        assert len(headings) == len(set(headings)), page


def test_every_verb_and_option_is_there() -> None:
    text = reference()["cli.md"]
    verbs = [name for name in app() if not name.startswith("-")]
    assert {"record", "eval", "doctor"} <= set(verbs)
    assert not [verb for verb in verbs if f"\n## lape {verb}\n" not in text]
    for option in ("--until", "--per-language", "--grader-url", "--tensor-parallel", "--sites"):
        assert option in text


def test_the_columns_of_tables_are_told_where_a_function_names_them() -> None:
    experiments = reference()["experiments.md"]
    page = experiments.partition("## `necessity`")[2].partition("\n## ")[0]
    assert all(f"\n| `{name}` | A row per language" in page for name in ("DAMAGES", "CORRELATIONS", "PREDICTIONS"))
    assert "| `RECORDS` | A row per setting" in experiments  # of another module


def test_what_other_pages_import_is_there() -> None:
    public = {id(resolve_name(path)) for path in HERE} | {id(sys.modules[path.rpartition(".")[0]]) for path in HERE}
    asked = set()
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for module, names in re.findall(r"^from (lape[\w.]*) import (.+)$", text, re.MULTILINE):
            asked |= {f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(",")}
    assert asked
    assert not [path for path in asked if id(resolve_name(path)) not in public], "docs/reference_pages/names.py"
