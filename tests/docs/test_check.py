"""The headline figures: what the pages print is what the committed tables give by plain arithmetic, and nothing of lape is used for it."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.pages import ROOT

SCRIPT = ROOT / "docs/studies/check.py"


def loaded(script: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"studies_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"studies_{script.stem}"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FIGURES = list(loaded(SCRIPT).figures())


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


def test_intervals_and_verdicts_are_those_that_the_rules_of_today_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made anew from themselves, the committed tables and verdicts stay as they are."""
    studies, copy = ROOT / "docs/studies", tmp_path / "studies"
    shutil.copytree(studies, copy, ignore=shutil.ignore_patterns("*.svg", "*.pdf", "*.png", "__pycache__"))
    remake = loaded(studies / "remake.py")
    monkeypatch.setattr(remake, "STUDIES", copy)
    remake.main()
    for path in copy.rglob("*.*"):
        there = studies / path.relative_to(copy)
        if path.suffix == ".parquet":
            made, committed = pl.read_parquet(path), pl.read_parquet(there)
            for name in made.columns:
                if made.schema[name] == pl.Float64:
                    assert made[name].is_close(committed[name], nans_equal=True).fill_null(value=True).all(), (
                        path,
                        name,
                    )
                    assert made[name].is_null().equals(committed[name].is_null()), (path, name)
                elif made.schema[name] != pl.List:
                    assert made[name].equals(committed[name], null_equal=True), (path, name)
        elif path.suffix == ".md":
            assert path.read_text(encoding="utf-8") == there.read_text(encoding="utf-8"), path
