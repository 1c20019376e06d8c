"""The reserved questions: what they are is pinned, and nothing reads them but what is listed here.

A figure on them means something as long as no model answered them while methods and settings were chosen.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from typing import get_args, get_type_hints

import pytest

from lape.data.samples import FURTHER, LANGUAGES, questions, texts
from lape.data.samples.reserved import reserved_questions
from lape.errors import OptionError
from support.pages import ROOT

IN_SRC: frozenset[str] = frozenset()
"""Modules of the package that may read them: none before the methods of the steering study are fixed."""
IN_TESTS = {"tests/data/test_reserved.py", "tests/data/test_samples.py"}
"""The tests of the texts themselves."""
OWN = "src/lape/data/samples/reserved.py"
BUNDLED = {OWN, "src/lape/data/samples/__init__.py"}
"""What may name the folder that they lie in."""

SHA256 = {
    "en": "9fa740f72817296d60868331a5f0af1cd6240cd1d017f0f0ef677521e0c7ade1",
    "zh": "5381bb1677e235af00b9aa9d3bc04f60e86476ff578e408a0f6a12acfb8b3722",
    "fr": "101f870c8987962fbd0ce729702c87b67e90b49fe7a12fd97e08dd5625ac1034",
    "es": "d2ac233ec2031a2d9c4c8bc1baa3f8cb639944b46ce63e2a51d682ec86250558",
    "vi": "acb92daf6a9eaa3d89ba1ec9569f134d005876f22d2d8f3a8b8c1577d1f0d374",
    "id": "7060e0dabbf8700b49bbe413afeb50939c92a7446552415e08b790d47c406a87",
    "ja": "c5ae890535af1be8d929c3d0c3e96a6de1256aa35383ba6bb58ad9a916bcaac9",
}
"""A line that is mended is another question: it is mended before any model answers, and its hash changes here."""

NAME = re.compile(
    r"\breserved_questions\b|\bsamples[./]reserved\b|\bbundled/reserved\b|\bsamples import [^\n]*\breserved\b"
)
"""The function, the module and the folder, wherever they stand."""
STEP = re.compile(r"(?:^|[./\\])(reserved|bundled)(?=$|[./\\])")
"""The folders as steps of a path."""


def strings(tree: ast.AST) -> Iterator[str]:
    """The strings of code, parts of f-strings too, but for those that are statements: docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def read_by(code: str) -> set[str]:
    """Of `reserved` and `bundled`: what a module imports, refers to, or has as a step of a path."""
    found = set[str]()
    if "reserved" not in code and "bundled" not in code:
        return found  # most modules: parsing them all takes seconds
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            dotted = [f"{node.module or ''}.{one.name}" for one in node.names]
        elif isinstance(node, ast.Attribute | ast.Name):
            dotted = [node.attr if isinstance(node, ast.Attribute) else node.id]
        else:
            continue
        if any({"reserved", "reserved_questions"} & set(one.split(".")) for one in dotted):
            found.add("reserved")
    for string in strings(tree):
        found |= {match[1] for match in STEP.finditer(string)} | ({"reserved"} if NAME.search(string) else set())
    return found


@cache
def modules(*folders: str) -> dict[str, str]:
    """Path -> code of every module of some folders."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "_build" not in path.parts]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@cache
def pages() -> dict[str, str]:
    """Path -> text of what is read beside code."""
    suffixes = {".md", ".ipynb", ".toml", ".json", ".txt"}
    paths = [
        path
        for folder in ("docs", "examples", "benchmarks", "tests")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and "_build" not in path.parts
    ]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in [ROOT / "README.md", *paths]}


def quoted(text: str) -> list[str]:
    """The reserved questions in English that a text has."""
    return [one for one in reserved_questions()["en"] if one in text]


def test_they_are_the_questions_that_were_reserved():
    folder = ROOT / "src/lape/data/samples/bundled/reserved"
    assert {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} == SHA256


def test_no_module_of_the_package_reads_them():
    found = {name: read_by(code) for name, code in modules("src").items()}
    assert {name for name, read in found.items() if "reserved" in read} == {OWN, *IN_SRC}
    assert {name for name, read in found.items() if "bundled" in read} == BUNDLED, "they lie in it"


def test_no_test_example_or_benchmark_reads_them_but_the_tests_of_the_texts():
    found = {name: read_by(code) for name, code in modules("tests", "docs", "examples", "benchmarks").items()}
    assert len(found) > 150
    assert {name for name, read in found.items() if read} <= IN_TESTS


def test_no_page_names_what_reads_them():
    assert len(pages()) > 50
    assert [name for name, text in pages().items() if NAME.search(text)] == []


def test_none_of_them_is_quoted_elsewhere():
    everything = modules("src", "tests", "docs", "examples", "benchmarks") | pages()
    assert {name: quoted(text) for name, text in everything.items() if quoted(text)} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import lape.data.samples.reserved",
        "from lape.data.samples import LANGUAGES, reserved as more",
        "from lape.data.samples.reserved import reserved_questions as ask",
        "from .reserved import reserved_questions",
        "def late():\n    from . import reserved\n",
        "from lape.data import samples\nask = samples.reserved",
        "ask = reserved_questions",
        "getattr(samples, 'reserved')",
        "importlib.import_module('lape.data.samples.reserved')",
        "files('lape.data.samples').joinpath('bundled', 'reserved', f'{language}.txt')",
        "Path(f'src/lape/data/samples/bundled/reserved/{language}.txt')",
        "open(r'bundled\\reserved\\en.txt')",
        "run([sys.executable, '-c', 'from lape.data.samples import reserved'])",
    ],
)
def test_what_reads_them_is_seen(code):
    assert "reserved" in read_by(code)


@pytest.mark.parametrize(
    "code",
    [
        "'''What is reserved stays so: `lape.data.samples.reserved`.'''",
        "x = re.compile(r'(unused|reserved)[^<]*')",
        "token = '<|reserved_special_token_3|>'",
        "torch.cuda.memory_reserved()",
        "raise ValueError('This name is reserved.')",
    ],
)
def test_what_does_not_is_not(code):
    assert read_by(code) == set()


def test_the_folder_around_them_is_seen_too():
    assert read_by("files('lape').joinpath('data/samples/bundled').rglob('*')") == {"bundled"}
    assert read_by("from lape.data import samples as bundled\nbundled.texts('all')") == set()


def test_a_page_that_names_or_quotes_them_is_seen():
    assert NAME.search("```python\nfrom lape.data.samples.reserved import reserved_questions\n```")
    assert NAME.search('"source": ["from lape.data.samples import questions, reserved\\n"]')
    assert not NAME.search("160 questions are reserved for the steering study.")
    assert quoted(f'["{reserved_questions()["en"][7]}"]') == [reserved_questions()["en"][7]]


def test_they_are_no_part_of_the_questions():
    with pytest.raises(OptionError, match=r"part is 'reserved'\. Expected (?!.*reserved)"):
        questions("reserved")
    kept = {one for asked in reserved_questions().values() for one in asked}
    parts = get_args(get_type_hints(questions)["part"])
    assert parts == ("development", "reporting", "all", "choosing", "native")
    for part in parts:
        assert not kept & {one for asked in questions(part).values() for one in asked}
    for language in (*LANGUAGES, *FURTHER):
        assert not kept & {
            line for text in texts("record", languages=[language])[language].texts for line in text.split("\n")
        }
