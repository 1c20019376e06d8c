"""The site: `make docs` writes it to docs/_build/html. It needs no network, while it is built or while it is read."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any
from unittest.mock import patch

from cyclopts.docs.markdown import generate_markdown_docs

from lape.cli import app as command_line

project = "lape"
copyright = "the authors of lape, Apache-2.0"
release = metadata.version("lape")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"lape {release}"
html_copy_source = False

myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
_INSIDES = (
    r"(recording\.engines?|model\.(experts|loss)|measure\.(ablation|bench|methods)|data\.(corpus|windows|language_id)"
    r"|reporting\.gather|figures\.style)\..*"
)
nitpick_ignore_regex = [("py:.*", rf"(?!lape\.).*|lape\.{_INSIDES}|lape\..*\.(_\w+|[A-Z])")]
"""Names of other projects, of lape's own insides, and type variables are not looked up."""


def setup(app: Any) -> None:
    """Pages that are made, not written."""
    app.connect("source-read", _completed)
    app.connect("env-get-outdated", lambda *_: ["reference/cli"])


def _completed(_app: Any, page: str, source: list[str]) -> None:
    if page == "reference/cli":
        with patch.object(sys, "argv", ["lape"]):  # usage lines begin with what was started
            verbs = generate_markdown_docs(command_line(), generate_toc=False, no_root_title=True, heading_level=2)
        source[0] += verbs
    if page.startswith("studies/") and page.endswith("/README"):
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n"
