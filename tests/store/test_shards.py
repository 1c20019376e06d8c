"""Shards of a text: which batches they take, how their manifests join, and that nothing is missing or there twice."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import MismatchError, OptionError
from lape.recording.engine import RecordOptions
from lape.store.shards import Shard, joined, missing

LAW = settings(deadline=None, max_examples=60)


@LAW
@given(st.integers(1, 20), st.integers(0, 70))
def test_each_batch_is_in_one_shard_and_shards_differ_by_one_batch_at_most(of, batches):
    taken = [Shard(number, of).mine(batches) for number in range(1, of + 1)]
    assert sorted(k for mine in taken for k in mine) == list(range(batches))
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@pytest.mark.parametrize(
    ("text", "shard"), [("1/1", Shard(1, 1)), ("3/16", Shard(3, 16)), (" 16 / 16 ", Shard(16, 16))]
)
def test_a_shard_is_read_from_number_and_of(text, shard):
    assert Shard.parse(text) == shard


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/3", "a/b", "", "1.5/3"])
def test_anything_else_is_refused(text):
    with pytest.raises(OptionError, match="1/16 to 16/16"):
        RecordOptions(shard=text)


TEXT = {"hash": "h", "documents": 3, "tokens": 90}


def part(number: int, of: int = 4, **changes) -> dict:
    return {"fr": {**TEXT, **Shard(number, of).describe(9, 2048), **changes}}


@LAW
@given(st.permutations([1, 2, 3, 4]), st.integers(1, 3))
def test_all_shards_are_the_whole_in_any_order_and_grouping(order, cut):
    groups = [reduce(joined, map(part, some)) for some in (order[:cut], order[cut:])]
    for group, some in zip(groups, (order[:cut], order[cut:]), strict=True):
        lacking = ", ".join(str(k) for k in range(1, 5) if k not in some)
        assert missing(group) == [f"fr: shard {lacking} of 4"]
    whole = joined(*groups)
    assert whole == {"fr": TEXT}
    assert missing(whole) == []


def test_shards_and_texts_of_other_languages_stand_beside_each_other():
    other = {"hash": "g", "documents": 1, "tokens": 5}
    both = joined(part(1), {"fr": other, "en": TEXT})
    assert both == {"fr": [other, part(1)["fr"]], "en": TEXT}
    assert joined(both, joined(joined(part(2), part(3)), part(4))) == {"fr": [other, TEXT], "en": TEXT}


@pytest.mark.parametrize("twice", [joined(part(1), part(2)), part(2)])
def test_a_shard_that_is_there_twice_is_named(twice):
    with pytest.raises(MismatchError, match=r"fr, text h.*shard 2 of 4.*twice"):
        joined(joined(part(2), part(3)), twice)


@pytest.mark.parametrize("other", [part(2, 5), part(2, batches=10), part(2, batch_tokens=1024), {"fr": TEXT}])
def test_shards_of_another_division_overlap(other):
    with pytest.raises(MismatchError, match=r"shard 1 of 4 .*overlap"):
        joined(part(1), other)
