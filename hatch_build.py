"""The package's own description: README.md with links that lead to the repository, since an index shows it without one.

The address is `Repository` of `[project.urls]` in pyproject.toml, and stands nowhere else; a plugin that replaces text would need it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")


def absolute(text: str, repository: str, tag: str) -> str:
    """Markdown whose relative links and pictures lead to a tag of the repository."""

    def to(link: re.Match[str]) -> str:
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({repository}/{kind}/{tag}/{link['path']})"

    return LINK.sub(to, text)


class CustomMetadataHook(MetadataHookInterface):
    """Fills in `readme`, which pyproject.toml leaves open."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling, with `[project]`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata["urls"]["Repository"]
        shown = absolute(text, repository, f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
