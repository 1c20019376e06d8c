"""A change beside its interval, from what each line has of it, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lape.measure.bootstrap import FEWEST, Resamples
from lape.measure.changes import loss_change, resampled_ends
from lape.model.loss import Loss

LINES, UNITS = 90, 30


def some(seed):
    random = np.random.default_rng(seed)
    return np.arange(LINES) % UNITS, random.normal(size=LINES), random.integers(1, 9, LINES)


def test_ends_are_those_of_the_ratio_over_units_drawn_again_and_again():
    unit, amount, size = some(0)
    drawn = Resamples(UNITS, 200, 1)
    ratios = np.array([(amount * times[unit]).sum() / (size * times[unit]).sum() for times in drawn.weights])
    expected = dict(zip(("low", "high"), drawn.interval(ratios)[1:], strict=True))
    assert resampled_ends(unit, amount, size, drawn) == pytest.approx(expected)


def test_a_change_of_loss_is_in_nats_a_scored_token():
    unit, nats, tokens = some(1)
    drawn = Resamples(UNITS, 50, 1)
    before, after = Loss(np.zeros(LINES), tokens), Loss(nats, tokens)
    found = loss_change("delta", unit, before, after, drawn)
    assert list(found) == ["tokens", "delta", "low", "high"]
    assert found["tokens"] == tokens.sum()
    assert found["delta"] == pytest.approx(nats.sum() / tokens.sum())
    assert found["low"] < found["delta"] < found["high"]


def test_too_few_units_have_a_change_without_ends_and_no_token_has_none():
    unit, amount, size = some(2)
    few = unit % (FEWEST - 1)
    assert resampled_ends(few, amount, size, Resamples(FEWEST - 1, 50, 1)) == {"low": None, "high": None}
    nothing = Loss(np.zeros(LINES), np.zeros(LINES, np.int64))
    found = loss_change("delta", unit, nothing, nothing, Resamples(UNITS, 50, 1))
    assert found == {"tokens": 0, "delta": 0.0, "low": None, "high": None}
