"""Every decoder-only language model of transformers is proven, and docs/architectures.md says so.

The verdicts are reached in a process of their own; see `conformance.py` for what each takes. Whole blocks are compiled of one type of every
structure, of the others the part that has the MLP; `make soak` compiles whole blocks of all, as does the command that writes the page.
"""

from __future__ import annotations

import re

import pytest
import transformers

from support.conformance import PAGE, mapped, page, proven_on, representatives, structures, verdicts
from support.zoo.table import KINDS

ON_PAGE = proven_on(PAGE.read_text())
WRITTEN_FOR = re.search(r"transformers (\S+) loads", PAGE.read_text())


@pytest.fixture(scope="module")
def found():
    return {one.kind: one for one in verdicts(mapped(), blocks=representatives(mapped()), workers=1)}


def test_whole_blocks_are_compiled_of_every_structure():
    supported = [kind for kind in KINDS.values() if kind.mlps and not kind.unsupported]
    chosen = [KINDS[name] for name in representatives(list(KINDS))]
    assert set().union(*map(structures, chosen)) == set().union(*map(structures, supported))


def test_no_finding_disagrees_with_the_table(found):
    wrong = {name: one.why for name, one in found.items() if one.verdict == "wrong"}
    assert not wrong


def test_what_was_proven_stays_proven(found):
    """On any version of transformers that still has the type."""
    lost = {name: found[name].why for name in ON_PAGE if name in found and found[name].verdict != "proven"}
    assert not lost


def test_at_most_five_types_are_unsupported(found):
    unsupported = [name for name, one in found.items() if one.verdict == "unsupported" and name in KINDS]
    assert len(unsupported) <= 5


def test_the_page_is_what_was_found(found):
    assert WRITTEN_FOR is not None
    if transformers.__version__ != WRITTEN_FOR[1]:
        new = sorted(set(mapped()) - set(KINDS))
        pytest.skip(f"docs/architectures.md is of transformers {WRITTEN_FOR[1]}; new here: {', '.join(new) or 'none'}")
    assert PAGE.read_text() == page(list(found.values()), transformers.__version__), (
        "run python tests/support/conformance.py"
    )


@pytest.mark.soak
def test_whole_blocks_of_every_type_compile():
    wrong = {one.kind: one.why for one in verdicts(mapped()) if one.verdict == "wrong"}
    assert not wrong
