"""The ledger: what README and docs say was measured is what the tables say, and nothing is said that it lacks."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from support.pages import ROOT


def loaded() -> Any:
    """docs/ledger.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("ledger", ROOT / "docs/ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ledger"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ledger = loaded()
BOOK = ledger.read()
COVERED = (
    "README.md",
    *(f"docs/{name}.md" for name in ("results", "choosing", "steering", "honest", "concepts", "start")),
    "docs/studies/adapters/README.md",
    "docs/studies/confusion/README.md",
)
MEASURED = [page for page in COVERED if page != "docs/concepts.md"]


def checked(page: str, text: str) -> list[str]:
    return ledger.check(page, text, BOOK)


def test_these_pages_are_held_to_the_ledger() -> None:
    assert set(COVERED) <= set(BOOK.pages)
    assert {result.page for result in BOOK.results} >= set(MEASURED)


@pytest.mark.parametrize("page", sorted({*BOOK.pages, *(result.page for result in BOOK.results)}))
def test_a_page_says_what_the_tables_say_and_no_measured_figure_besides(page: str) -> None:
    assert checked(page, ledger.text_of(page)) == []


def test_the_ledger_is_what_the_tables_say_now() -> None:
    assert ledger.page(BOOK) == ledger.PAGE.read_text(encoding="utf-8"), "make ledger"


def test_every_table_that_reread_prints_is_on_the_page_of_results() -> None:
    lines = {result.lines.split()[0] for result in BOOK.results if result.page == "docs/results.md" and result.lines}
    assert {make.__name__ for make in ledger.reread().TABLES} <= lines


@pytest.mark.parametrize("page", COVERED)
@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("\n\nSwitched off, they cost German 7.77 nats per token.\n", ["7.77"]),
        ("\n\nOf all answers 77 % were good, after 17 ms.\n", ["77", "17"]),
        ("\n\n| | de |\n|---|---|\n| neurons, 200 | 177 |\n", ["177"]),
        ("\n\n```\n de    77   1.777\n```\n", ["77", "1.777"]),
    ],
    ids=["decimal", "unit", "table", "output"],
)
def test_a_planted_figure_is_found(page: str, planted: str, found: list[str]) -> None:
    wrong = checked(page, ledger.text_of(page) + planted)
    assert [re.search(r"\d: (\S+) is not in", one)[1] for one in wrong] == found


@pytest.mark.parametrize("page", MEASURED)
def test_a_changed_figure_is_found(page: str) -> None:
    """Twenty or so of a page: the last digit is another."""
    text = ledger.text_of(page)
    excused = [span for one in BOOK.excused for span in one.spans(page, text)]
    measured = [
        (start, end)
        for start, end in ledger.figures(text)
        if not any(first <= start and end <= last for first, last in excused)
    ]
    assert measured
    for _, end in measured[:: max(len(measured) // 20, 1)]:
        other = str((int(text[end - 1]) + 3) % 10)
        assert checked(page, text[: end - 1] + other + text[end:]), text[end - 30 : end]


def test_what_is_a_measured_figure() -> None:
    page = """# Gemma 3.5

`--rate 0.01` and [a link](page-1.5.md) and Python 3.11.2 and 127.0.0.1 and BF16 and Qwen2.5 and 16 neurons.
They cost .5, −0.25, +1,024.5 and (2.5 to 3); 7 % or 8 nats; it is 0.75.
<!-- 4.5 -->

| size 1 | 2 |
|---|---|
| row 3 | 4 and −5 |

```python
rate = 6.5
```
```
9 out
```
"""
    assert [page[start:end] for start, end in ledger.figures(page)] == (
        [".5", "−0.25", "+1,024.5", "2.5", "7", "8", "0.75", "4", "−5", "9"]
    )


@pytest.mark.parametrize(
    ("value", "spec", "said"),
    [
        (0.654, ".2f", "0.65"),
        (0.654, "~.2f", ".65"),
        (-0.011, "~+.3f", "−.011"),
        (10.04, "~.1f", "10.0"),
        (-0.654, "−.2f", "−0.65"),
        (0.075, ".2s", "0.08"),
        (0.002, ".2s", "0.002"),
        (3.298, ".2s", "3.30"),
        (-0.0, "−.2s", "−0.000"),
    ],
)
def test_figures_are_set_as_the_pages_set_them(value: float, spec: str, said: str) -> None:
    assert f"{ledger.Figure(value):{spec}}" == said


def planted(monkeypatch: pytest.MonkeyPatch, **given: str) -> Any:
    """A result on a table of two rows."""
    table = pl.DataFrame({"language": ["fr", "zh"], "own": [0.125, 2.5], "n": [7, 8]})
    monkeypatch.setattr(ledger, "frame", lambda _: table)
    return ledger.Result("page.md", "study", **({"table": "planted"} | given))


SOURCES = {"study": replace(BOOK.sources["gemma-3-270m"])}


@pytest.mark.parametrize(
    ("given", "text", "covered"),
    [
        ({"says": "French loses {own:.3f} nats", "row": "language = 'fr'"}, "French loses\n  0.125 nats", ["0.125"]),
        ({"says": "| own | {} |", "each": "{own:~.2f}"}, "| own | .12 | 2.50 |", [".12 | 2.50"]),
        ({"says": "{fr[n]} and {zh[own]:.1f}", "by": "language"}, "of 7 and 2.5 in 9.5", ["7", "2.5"]),
        ({"says": "{total} in all", "value": "sum(n) as total"}, "15 in all", ["15"]),
        ({"says": "under 3 nats", "holds": "max(own) < 3"}, "all under 3 nats", ["under 3 nats"]),
        ({"says": "about 4.5 s", "table": ""}, "takes about 4.5 s.", ["about 4.5 s"]),
        ({"says": "loses {n}", "row": "n = 7", "after": "second"}, "loses 7, second: loses 7", ["7"]),
    ],
)
def test_an_entry_covers_its_figures(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], text: str, covered: list[str]
) -> None:
    result = planted(monkeypatch, **given)
    spans = list(ledger.covered(result, SOURCES, text))
    assert [text[start:end] for start, end in spans] == covered
    if "after" in given:
        assert spans[0][0] > text.index("second")


@pytest.mark.parametrize(
    ("given", "text", "why"),
    [
        ({"says": "loses {own:.3f} nats", "row": "n = 7"}, "loses 0.126 nats", "the page says 'loses 0.126 nats'"),
        ({"says": "loses {own:.2f}", "row": "n = 7"}, "loses 0.125", "0 times"),  # the beginning of another number
        ({"says": "{own:.3f} nats", "row": "n = 7"}, "10.125 nats", "0 times"),  # the end of another number
        ({"says": "loses {n}", "row": "n = 7"}, "loses 7 and loses 7", "2 times"),
        ({"says": "loses {own:.3f}"}, "loses 0.125", "2 rows"),
        ({"says": "loses {own:.3f}", "row": "n = 9"}, "loses 0.125", "0 rows"),
        ({"says": "loses {others:.3f}", "row": "n = 7"}, "loses 0.125", "no 'others'"),
        ({"says": "under 2 nats", "holds": "max(own) < 2"}, "under 2 nats", "not max"),
        ({"says": "loses {n}", "row": "n = 7", "after": "third"}, "loses 7", "does not say 'third'"),
    ],
)
def test_an_entry_that_is_not_so_is_told(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], text: str, why: str
) -> None:
    with pytest.raises(ledger.Wrong, match=re.escape(why)):
        list(ledger.covered(planted(monkeypatch, **given), SOURCES, text))


def test_literal_figures_beside_fields_are_not_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "French loses 0.125 nats, German 7.5."
    result = planted(monkeypatch, says="French loses {own:.3f} nats, German 7.5", row="n = 7")
    book = ledger.Book(("page.md",), SOURCES, (result,), ())
    (wrong,) = ledger.check("page.md", text, book)
    assert wrong.startswith("page.md:1: 7.5 is not in")


@pytest.mark.parametrize("excuse", BOOK.excused, ids=lambda one: one.why)
def test_every_excuse_is_needed(excuse: Any) -> None:
    """A pattern that excuses nothing is a hole for what comes."""
    for pattern in excuse.patterns:
        one = replace(excuse, patterns=(pattern,))
        texts = {page: ledger.text_of(page) for page in BOOK.pages}
        assert any(
            first <= start and end <= last
            for page, text in texts.items()
            for first, last in one.spans(page, text)
            for start, end in ledger.figures(text)
        ), pattern


def test_wrong_files_are_told(tmp_path: Any) -> None:
    given = ledger.ENTRIES.read_text(encoding="utf-8")
    path = tmp_path / "ledger.toml"
    for old, new, why in [
        ('source = "gemma-3-270m-rows"', 'source = "columns"', "no source 'columns'"),
        ('standing = "exploratory"', 'standing = "doubtful"', "standing 'doubtful'"),
        (
            'says = "| own loss, nats per token: own neurons off | {} |"',
            'say = "| own loss, nats per token: own neurons off | {} |"',
            "no such key: say",
        ),
        ('says = "| own loss, nats per token: own neurons off | {} |"', "", "either `says` or `lines`"),
    ]:
        assert old in given
        path.write_text(given.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ledger.Wrong, match=re.escape(why)):
            ledger.read(path)


def test_a_result_that_was_replaced_names_what_replaces_it() -> None:
    assert ledger.STANDINGS.fullmatch("replaced-by-gemma-3-270m-2")
    assert not ledger.STANDINGS.fullmatch("replaced")
