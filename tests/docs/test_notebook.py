"""The notebook: as it is committed, and run from top to bottom by `make soak`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).parents[2] / "examples/language_neurons.ipynb"


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_was_run_in_order_without_an_error_and_is_small():
    notebook = nbformat.read(PATH, 4)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    kinds = {output.output_type for cell in code(notebook) for output in cell.outputs}
    assert {"display_data", "execute_result"} <= kinds <= {"display_data", "execute_result", "stream"}
    assert PATH.stat().st_size < 150_000


def test_it_names_no_place_of_the_machine_it_was_run_on():
    assert not re.search(r"(?<![\w.<])/(work|home|root|tmp|usr)/", PATH.read_text(encoding="utf-8"))


def test_what_it_imports_is_there():
    source = "\n".join(cell.source for cell in code(nbformat.read(PATH, 4)))
    exec("\n".join(re.findall(r"^(?:from|import) .*", source, re.MULTILINE)), {})


@pytest.mark.soak
def test_it_runs_from_top_to_bottom(tmp_path: Path):
    notebook = nbformat.read(PATH, 4)
    for cell in code(notebook):
        cell.outputs = []
    NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert all(cell.outputs for cell in code(notebook))
    (same,) = (cell.outputs[0].data["text/plain"] for cell in code(notebook) if "lape.export" in cell.source)
    assert same.startswith("(True, "), "what is served is what was edited"
