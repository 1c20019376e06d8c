"""The headline figures: what the pages print is what the committed tables give by plain arithmetic, and nothing of lape is used for it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from typing import Any

import pytest

from support.pages import ROOT

SCRIPT = ROOT / "docs/studies/check.py"


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("check_figures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_figures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FIGURES = list(loaded().figures())


@pytest.mark.parametrize("figure", FIGURES, ids=[figure.about for figure in FIGURES])
def test_a_printed_figure_is_what_the_tables_give_and_stands_on_its_page(figure: Any) -> None:
    assert figure.agrees, (figure.printed, list(figure.computed()))
    assert figure.on_page, (figure.page, figure.printed)


def test_nothing_of_lape_is_used() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = [
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    ]
    assert "polars" in imported
    assert not {"lape", "reread", "remake"} & set(imported)
