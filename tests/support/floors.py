"""The picture of the floors in docs/architecture.md: the contract in pyproject.toml, and the imports that there are.

python tests/support/floors.py                # draw it anew
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: python tests/support/floors.py -->\n", "<!-- end of floors -->"


def contract() -> dict[str, Any]:
    """The contract of the floors."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (found,) = [one for one in linter["contracts"] if one["type"] == "layers"]
    return found


def floors() -> list[list[str]]:
    """Rooms of each floor, from the top, as the contract has them."""
    return [[room.strip().removeprefix("lape.") for room in floor.split("|")] for floor in contract()["layers"]]


def imports(room: str) -> list[str]:
    """The other rooms whose modules a room's modules import, in functions too, in the order of the floors; but for the lines that the contract
    lets go upward.
    """
    upward = contract().get("ignore_imports", ())
    path = ROOT / "src" / "lape" / room
    files = [path.with_suffix(".py")] if path.with_suffix(".py").exists() else sorted(path.rglob("*.py"))
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                importer = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
                if f"{importer} -> {node.module}" in upward:
                    continue
                parts = node.module.split(".")
                if parts[0] == "lape":
                    found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    order = [one for floor in floors() for one in floor]
    return [one for one in order if one in found and one != room]


def about(room: str) -> str:
    """The first sentence of a room's docstring."""
    path = ROOT / "src" / "lape" / room
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".")


def picture() -> str:
    """Boxes, a floor a row."""
    width = 68
    lines = ["┌" + "─" * width + "┐"]
    for k, floor in enumerate(floors()):
        if k:
            lines.append("├" + "─" * width + "┤")
        lines.append("│" + "   ·   ".join(floor).center(width) + "│")
    return "\n".join([*lines, "└" + "─" * width + "┘"])


def drawn() -> str:
    """The whole part of the page."""
    rows = [f"| `{room}` | {about(room)} | {', '.join(imports(room)) or '–'} |" for floor in floors() for room in floor]
    table = "\n".join(["| room | what it is | imports |", "|---|---|---|", *rows])
    return f"{BEGIN}```\n{picture()}\n```\n\n{table}\n{END}"


def redrawn(page: str) -> str:
    """The page with its picture as it is now."""
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: drawn(), page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
