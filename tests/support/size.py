"""Print the size of the project, and keep the table that says how many lines each file of src may have.

`python tests/support/size.py` prints lines of code (not blank, comment or docstring), the largest files and functions, and nodes of the syntax tree.
`python tests/support/size.py --tick` also writes today's lines into `promised_sizes.tsv`. A row is done when its file has no more lines than promised.
"""

from __future__ import annotations

import ast
import csv
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PROMISES = Path(__file__).with_name("promised_sizes.tsv")
LIMITS = {"src": 24_000, "tests": 26_000}
FILE_LINES, FUNCTION_LINES = 400, 60
NODES_BEFORE = 345_039
"""Nodes of src at 8b941f4, where it had 32,067 lines of code."""
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


class Size(NamedTuple):
    """What was counted in one file."""

    lines: set[int]
    """The numbers of its lines of code."""
    tree: ast.Module


def measure(path: Path) -> Size:
    """Find the lines of code of a file: those with a token that is no comment and no string standing alone as a statement."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return Size(lines, tree)


def functions(size: Size) -> Iterator[tuple[str, int]]:
    """Yield each function's name and its lines of code, the signature included."""
    for node in ast.walk(size.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, len(size.lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def measure_folder(folder: str) -> dict[str, Size]:
    """Measure every Python file below a folder of the project, by its path in the folder."""
    place = ROOT / folder
    paths = sorted(path for path in place.rglob("*.py") if "_build" not in path.parts)
    return {path.relative_to(place).as_posix(): measure(path) for path in paths}


def tick(sizes: dict[str, Size]) -> list[str]:
    """Write the lines of today into the table; give the files that it does not name."""
    with PROMISES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    counts = {f"src/{name}": len(size.lines) for name, size in sizes.items()}
    for row in rows:
        row["now"] = str(counts.get(row["file"], 0))
        row["state"] = "done" if int(row["now"]) <= int(row["promised"]) else "open"
    with PROMISES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return sorted(set(counts) - {row["file"] for row in rows})


def main() -> int:
    """Print the sizes; give 1 where a limit is exceeded."""
    print_ = sys.stdout.write
    folders = {folder: measure_folder(folder) for folder in ("src", "tests", "benchmarks", "docs", "examples")}
    exceeded = False
    for folder, sizes in folders.items():
        total, limit = sum(len(size.lines) for size in sizes.values()), LIMITS.get(folder)
        exceeded |= limit is not None and total > limit
        print_(
            f"{folder:<11}{total:>7,} lines of code in {len(sizes)} files{f', at most {limit:,}' if limit else ''}\n"
        )
    source = folders["src"]
    print_(
        f"nodes of src {sum(1 for size in source.values() for _ in ast.walk(size.tree)):,}; {NODES_BEFORE:,} at 8b941f4\n"
    )
    for name, size in source.items():
        if len(size.lines) > FILE_LINES:
            print_(f"src/{name}: {len(size.lines)} lines, at most {FILE_LINES}\n")
            exceeded = True
        for function, count in functions(size):
            if count > FUNCTION_LINES:
                print_(f"src/{name}: {function} has {count} lines, at most {FUNCTION_LINES}\n")
                exceeded = True
    if "--tick" in sys.argv:
        for name in tick(source):
            print_(f"{name} is not in {PROMISES.name}\n")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
