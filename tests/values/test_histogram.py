"""The grid of histograms: every number lies in one bin, edges belong to the bin below them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lape.values.histogram import BINS, EDGES, ZERO, bins_of

FINITE = st.floats(width=32, allow_nan=False)


def test_edges_rise_through_zero_and_cover_what_activations_are():
    assert len(EDGES) == BINS - 1 == 69
    assert bool((EDGES[1:] > EDGES[:-1]).all())
    assert (float(EDGES[0]), float(EDGES[ZERO]), float(EDGES[-1])) == (-0.75, 0.0, 12288.0)
    assert float(EDGES[ZERO + 1]) == -float(EDGES[ZERO - 1]) == 2.0**-10


@given(st.lists(FINITE, min_size=1, max_size=30))
def test_a_number_lies_above_the_edge_before_its_bin_and_not_above_the_one_after(numbers):
    edges = [float("-inf"), *EDGES.tolist(), float("inf")]
    for number, place in zip(numbers, bins_of(torch.tensor(numbers)).tolist(), strict=True):
        assert edges[place] < number <= edges[place + 1] or (number == float("-inf") and place == 0)


def test_edges_and_their_neighbours_are_told_apart():
    above = torch.nextafter(EDGES, torch.full_like(EDGES, torch.inf))
    below = torch.nextafter(EDGES, torch.full_like(EDGES, -torch.inf))
    expected = torch.arange(len(EDGES), dtype=torch.int32)
    assert torch.equal(bins_of(EDGES), expected)
    assert torch.equal(bins_of(below), expected)
    assert torch.equal(bins_of(above), expected + 1)


def test_only_what_is_above_zero_lies_in_the_bins_after_that_of_zero():
    numbers = torch.tensor([0.0, -0.0, 1e-45, -1e-45])
    assert bins_of(numbers).tolist() == [ZERO, ZERO, ZERO + 1, ZERO]


def test_numbers_that_do_not_lie_side_by_side_are_read_as_they_are():
    numbers = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(bins_of(numbers.T), bins_of(numbers).T)
    assert torch.equal(bins_of(numbers[:, ::3]), bins_of(numbers)[:, ::3])
