"""The list of oracles is true: their tests exist, and their bugs fit into the source. `python tests/support/mutants.py` runs them."""

from __future__ import annotations

from collections import Counter

from support.mutants import ROOT, read_oracles


def test_every_oracle_has_its_test_and_the_text_that_its_bug_replaces():
    faults = {oracle.test: fault for oracle in read_oracles() if (fault := oracle.find_fault())}
    assert faults == {}


def test_every_bug_changes_something_and_comes_once():
    oracles = read_oracles()
    assert all(oracle.before != oracle.after and oracle.holds.endswith(".") for oracle in oracles)
    assert max(Counter((oracle.test, oracle.file, oracle.before) for oracle in oracles).values()) == 1


def test_every_room_has_an_oracle():
    rooms = {folder.parent.name for folder in (ROOT / "src/lape").glob("*/__init__.py")}
    covered = {oracle.file.split("/")[2] for oracle in read_oracles()}
    assert rooms - covered == set()
