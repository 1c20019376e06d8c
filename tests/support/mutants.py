"""Show that every oracle catches the bug it is there to catch.

    python tests/support/mutants.py [--only REGEX]

An oracle is a test that computes what it expects without the code it tests. Each entry of oracles.toml names one, and a mutant: a plausible
bug, written as a text that stands once in a source file and the text that replaces it. The bug goes into a copy of src, never into src itself.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("oracles.toml")
LONGEST_S = 900
"""Seconds after which a test with a bug is stopped."""
KINDS = ("error", "caught", "passed", "skipped")
"""What can happen to a test: of several cases the first of these counts."""


@dataclass(frozen=True)
class Oracle:
    """A test, the definition that it holds, and a bug that breaks the definition."""

    holds: str
    """The definition, in one sentence."""
    test: str
    """Path from the root, `::` and the name of the function; a case in brackets where all cases together take long."""
    file: str
    """The source file that the bug goes into, from the root."""
    before: str
    """What stands in it once."""
    after: str
    """What replaces it."""

    def find_fault(self) -> str | None:
        """Why the oracle cannot be run; None if it can."""
        path, _, name = self.test.partition("::")
        if name.partition("[")[0] not in list_functions(ROOT / path):
            return "test missing"
        source = ROOT / self.file
        return None if source.is_file() and source.read_text().count(self.before) == 1 else "text missing"


def read_oracles() -> list[Oracle]:
    """Read oracles.toml."""
    return [Oracle(**entry) for entry in tomllib.loads(LIST.read_text())["oracle"]]


@cache
def list_functions(path: Path) -> frozenset[str]:
    """The names of the functions in a Python file; none if there is no file."""
    if not path.is_file():
        return frozenset()
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def run_tests(tests: Iterable[str], copy: Path, *options: str, seconds: float | None = None) -> dict[str, str]:
    """Run tests on a copy of src: "passed", "caught" if an assertion failed, else what happened. Nothing if it takes longer than `seconds`."""
    report = copy.parent / "report.xml"
    report.unlink(missing_ok=True)
    environment = {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",  # a bug may leave a file's size and second of change as they were
        "HYPOTHESIS_STORAGE_DIRECTORY": str(copy.parent / "hypothesis"),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *options]
    command += [f"--junit-xml={report}", *tests]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=False, timeout=seconds
        )
    if not report.is_file():
        return {}
    cases: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        cases.setdefault(test, []).append(describe_case(case))
    return {test: next(kind for kind in KINDS if kind in kinds) for test, kinds in cases.items()}


def describe_case(case: ElementTree.Element) -> str:
    """What happened to one case of a test."""
    failure = case.find("failure")
    if failure is not None:
        return "caught" if is_assertion(failure) else "error"
    return next((kind for kind in ("error", "skipped") if case.find(kind) is not None), "passed")


def is_assertion(failure: ElementTree.Element) -> bool:
    """Whether a test failed by an assertion, or because nothing was raised where it expected an error."""
    message, text = failure.get("message", ""), failure.text or ""
    grouped = "ExceptionGroup" in message and "AssertionError" in text  # hypothesis, of several failures
    return grouped or message.startswith(("AssertionError", "assert ", "Failed: DID NOT"))


def judge(oracle: Oracle, copy: Path, unchanged: Mapping[str, str]) -> str:
    """Run an oracle's test on the copy with its bug, which is taken out again. `unchanged`: results without bugs, by test."""
    if fault := oracle.find_fault():
        return fault
    test = oracle.test.partition("[")[0]
    if (before := unchanged.get(test, "not run")) != "passed":
        return f"{before} without the bug"
    source = copy / Path(oracle.file).relative_to("src")
    whole = source.read_text()
    source.write_text(whole.replace(oracle.before, oracle.after))
    try:
        result = run_tests([oracle.test], copy, "-x", seconds=LONGEST_S).get(test, "not run")
    finally:
        source.write_text(whole)
    return {"caught": "killed", "passed": "survived"}.get(result, result)


def main() -> int:
    """Print a row for each oracle. 1 unless every mutant is killed."""
    parser = argparse.ArgumentParser(description="Show that every oracle catches the bug it is there to catch.")
    parser.add_argument("--only", default="", metavar="REGEX", help="run the oracles whose test or source file matches")
    wanted = re.compile(parser.parse_args().only)
    oracles = [oracle for oracle in read_oracles() if wanted.search(oracle.test) or wanted.search(oracle.file)]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        unchanged = run_tests(dict.fromkeys(oracle.test for oracle in oracles if not oracle.find_fault()), copy)
        for oracle in oracles:
            began = time.monotonic()
            results.append(judge(oracle, copy, unchanged))
            row = f"{results[-1]:10} {time.monotonic() - began:4.0f} s  {oracle.test}  ({oracle.file})"
            print(row, flush=True)  # noqa: T201
    print(f"{results.count('killed')} of {len(results)} mutants killed")  # noqa: T201
    return int(set(results) != {"killed"})


if __name__ == "__main__":
    sys.exit(main())
