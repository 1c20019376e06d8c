"""The site: `make docs` writes it to docs/_build/html. It needs no network, while it is built or while it is read."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

project = "lape"
copyright = "the authors of lape, Apache-2.0"
release = metadata.version("lape")

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lape {release}"
html_copy_source = False

myst_heading_anchors = 3

_TREES = {"reference/index": "lape\ncli\noptions\n*", "decisions/README": "0*"}
"""Pages that lead to their neighbours; a reader of the repository follows their links."""


def setup(app: Any) -> None:
    """Trees of pages that only the site needs."""
    app.connect("source-read", _with_tree)


def _with_tree(app: Any, page: str, source: list[str]) -> None:
    neighbours = [one for one in (Path(app.srcdir) / page).parent.rglob("*.md") if one.name != "README.md"]
    study = page.startswith("studies/") and page.endswith("/README") and neighbours
    tree = "**" if study else _TREES.get(page)
    if tree:
        source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n\n{tree}\n```\n"
