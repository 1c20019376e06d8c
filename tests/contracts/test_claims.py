"""What every standing claim owes: a planted case in which it fails, what was known when it was written, and what it is judged by."""

from __future__ import annotations

import pytest

from lape.experiments import experiments
from lape.experiments.claim import read
from lape.study.claims import judge
from support.failing import failing

CLAIMS = [(one, claim) for one in experiments().values() if one.claims is not None for claim in read(one.claims)]
each = pytest.mark.parametrize(("experiment", "claim"), CLAIMS, ids=[claim.name for _, claim in CLAIMS])
CASES = failing()

pytestmark = pytest.mark.usefixtures("one_thread")


@each
def test_it_can_fail(experiment, claim):
    """The experiment's own tables of inputs in which it is untrue: figures are there, and it does not hold."""
    assert claim.name in CASES, f"give it a planted case in tests/support/failing/{experiment.name}.py"
    tables, over = CASES[claim.name]()
    experiment.tables[claim.table].check(claim.table, tables[claim.table])
    found = judge(claim, tables, {}, over)
    assert found.verdict in ("does not hold", "undecided here")
    assert found.members["value"].count(), "undecided for want of figures shows nothing"
    assert found.members["low"].count(), "undecided for want of intervals shows nothing"


@each
def test_it_says_when_it_was_written_and_what_was_known(experiment, claim):
    assert claim.written is not None
    assert claim.seen is not None


@each
def test_its_table_keeps_what_it_is_judged_by(experiment, claim):
    table = experiment.tables[claim.table]
    assert (claim.range == "spread") == (table.ends != "95 % interval")
    if claim.range == "interval":
        assert table.quantiles(claim.value) is not None


def test_every_planted_case_is_of_a_claim():
    every = {claim.name for one in experiments().values() if one.claims is not None for claim in read(one.claims)}
    assert set(CASES) <= every
