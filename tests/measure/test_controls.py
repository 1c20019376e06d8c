"""Control neurons: as many of the same kind, never one that is excluded, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lape.errors import LapeError
from lape.measure.controls import control, matched_like, random_like, stream
from lape.measure.controls import seeded as seeded_for
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace

SPACE = NeuronSpace.of([(0, None, 100), (1, None, 60), (2, 0, 40), (2, 1, 40)])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some(share, seed, space=SPACE):
    return NeuronSet(space, torch.nonzero(torch.rand(len(space), generator=seeded(seed)) < share)[:, 0])


def energies(seed=5, space=SPACE):
    return torch.rand(len(space), generator=seeded(seed), dtype=torch.float64)


def deciles(energy, space=SPACE):
    """(neurons,) in which tenth of its stretch, by energy, each neuron lies."""
    result = torch.empty(len(space), dtype=torch.int64)
    for stretch in space:
        order = sorted(range(stretch.start, stretch.stop), key=lambda flat: float(energy[flat]))
        for rank, flat in enumerate(order):
            result[flat] = 10 * rank // stretch.width
    return result


def counted(neurons, decile=None):
    """How many neurons lie in each (stretch, decile)."""
    stretch = neurons.space.stretch_of(neurons.flat)
    kind = stretch * 10 + (0 if decile is None else decile[neurons.flat])
    return torch.bincount(kind, minlength=10 * len(neurons.space.stretches))


def free_of(chosen, excluded):
    return NeuronSet(SPACE, torch.arange(len(SPACE))) - excluded - chosen


shares = st.floats(0, 0.3)
seeds = st.integers(0, 10**6)


@settings(max_examples=60, deadline=None)
@given(shares, shares, seeds)
def test_random_controls_are_as_many_in_every_stretch_that_has_enough(share, others, seed):
    chosen, excluded = some(share, seed), some(others, seed + 1)
    assume(bool((counted(free_of(chosen, excluded)) >= counted(chosen)).all()))
    assert torch.equal(counted(random_like(chosen, excluded, seeded(seed))), counted(chosen))


@settings(max_examples=60, deadline=None)
@given(shares, shares, seeds)
def test_matched_controls_are_as_many_in_every_stretch_that_has_enough(share, others, seed):
    chosen, excluded = some(share, seed), some(others, seed + 1)
    assume(bool((counted(free_of(chosen, excluded)) >= counted(chosen)).all()))
    drawn = matched_like(chosen, excluded, energies(seed), seeded(seed))
    assert torch.equal(counted(drawn), counted(chosen))


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 0.15), shares, seeds)
def test_matched_controls_are_as_many_in_every_decile_that_has_enough(share, others, seed):
    chosen, excluded, energy = some(share, seed), some(others, seed + 1), energies(seed)
    decile = deciles(energy)
    assume(bool((counted(free_of(chosen, excluded), decile) >= counted(chosen, decile)).all()))
    drawn = matched_like(chosen, excluded, energy, seeded(seed))
    assert torch.equal(counted(drawn, decile), counted(chosen, decile))


@settings(max_examples=60, deadline=None)
@given(shares, shares, seeds)
def test_no_excluded_neuron_and_none_of_the_set_is_ever_drawn(share, others, seed):
    chosen, excluded = some(share, seed), some(others, seed + 1)
    assume(bool((counted(free_of(chosen, excluded)) >= counted(chosen)).all()))
    for drawn in (
        random_like(chosen, excluded, seeded(seed)),
        matched_like(chosen, excluded, energies(seed), seeded(seed)),
    ):
        assert len(drawn & (chosen | excluded)) == 0


@pytest.mark.parametrize("draw", [random_like, lambda c, e, g: matched_like(c, e, energies(), g)])
def test_the_same_seed_draws_the_same_and_another_seed_others(draw):
    chosen, excluded = some(0.1, 1), some(0.1, 2)
    assert draw(chosen, excluded, seeded(3)) == draw(chosen, excluded, seeded(3))
    assert draw(chosen, excluded, seeded(3)) != draw(chosen, excluded, seeded(4))


def test_where_a_decile_is_used_up_its_neighbours_are_taken():
    space = NeuronSpace.dense(1, 100)
    chosen, excluded = NeuronSet(space, torch.tensor([30, 39])), NeuronSet(space, torch.arange(30, 40))
    for seed in range(20):
        drawn = matched_like(chosen, excluded, torch.arange(100, dtype=torch.float64), seeded(seed))
        assert len(drawn) == 2
        assert all(20 <= flat < 50 for flat in drawn)


def test_energy_is_ranked_within_its_stretch():
    """A stretch whose every energy is higher than all others' still has neurons of low energy for a stretch."""
    space = NeuronSpace.dense(2, 50)
    energy = torch.cat([torch.arange(50), 1e6 + torch.arange(50)]).double()
    low = NeuronSet(space, torch.tensor([50, 51]))
    drawn = matched_like(low, low, energy, seeded())
    assert all(50 <= flat < 55 for flat in drawn)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_only_the_order_of_energies_matters(seed):
    chosen, energy = some(0.1, seed), energies(seed)
    assert matched_like(chosen, chosen, energy, seeded(seed)) == matched_like(
        chosen, chosen, energy.exp(), seeded(seed)
    )


def test_every_free_neuron_of_a_decile_is_drawn_now_and_then():
    space = NeuronSpace.dense(1, 50)
    chosen = NeuronSet(space, torch.tensor([0]))
    drawn = [matched_like(chosen, chosen, torch.arange(50.0), seeded(seed)).flat.item() for seed in range(200)]
    assert set(drawn) == {1, 2, 3, 4}
    assert min(drawn.count(flat) for flat in (1, 2, 3, 4)) > 25


def test_no_neurons_have_no_controls():
    nothing = NeuronSet(SPACE, torch.empty(0))
    assert len(random_like(nothing, some(0.1, 1), seeded())) == 0
    assert len(matched_like(nothing, nothing, energies(), seeded())) == 0


def test_a_control_is_never_quietly_smaller_than_its_set():
    """Fewer neurons do less damage, and would make the set look good. Where too few are free, say so."""
    chosen = NeuronSet(SPACE, torch.arange(60))
    try:
        drawn = random_like(chosen, chosen, seeded())
    except LapeError:
        return
    assert len(drawn) == len(chosen)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 0.6), shares, seeds, st.booleans())
def test_a_control_is_drawn_or_it_is_said_why_not(share, others, seed, by_energy):
    chosen, excluded, energy = some(share, seed), some(others, seed + 1), energies(seed) if by_energy else None
    enough = bool((counted(free_of(chosen, excluded)) >= counted(chosen)).all())
    drawn, why = control(chosen, excluded, energy, seeded(seed))
    if enough:
        expected = matched_like(chosen, excluded, energy, seeded(seed))
        assert (drawn, why) == (expected, "")
    else:
        assert drawn is None
        assert why.startswith("Only ")
        assert "Choose smaller sets" in why


def test_streams_of_a_seed_are_apart_and_those_that_tables_were_made_with():
    """The very seeds: another would give published tables other controls."""
    assert stream(3, 14) == 3_000_023
    for number, draw, seed in ((0, None, 5_000_015), (2, None, 5_000_017), (2, 0, 5_002_033), (2, 7, 5_002_040)):
        expected = torch.rand(4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.rand(4, generator=seeded_for(5, number, draw)), expected)
    seeds = {stream(seed, number * 1009 + draw) for seed in range(3) for number in range(20) for draw in range(100)}
    assert len(seeds) == 3 * 20 * 100
