"""Control neurons: as many of the same kind, never one that is excluded, the same for the same seed."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lape.errors import LapeError, OptionError
from lape.measure.controls import (
    CONTROLS,
    LIKE,
    NEAREST,
    control,
    energy_ratio,
    kinds_of,
    matched_like,
    random_like,
    stream,
    unlike,
)
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


def counted(neurons):
    """How many neurons lie in each stretch."""
    return torch.bincount(neurons.space.stretch_of(neurons.flat), minlength=len(neurons.space.stretches))


def nearest(energy, one, free, count=NEAREST):
    """The free neurons of a stretch nearest in energy to one: by the ratio, to about one per cent, the lower index first."""
    level = [round(100 * math.log(value)) for value in energy.tolist()]
    return sorted(free, key=lambda flat: (abs(level[flat] - level[one]), flat))[:count]


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


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_control_of_one_neuron_is_one_of_the_ten_nearest_in_energy_of_its_layer(seed):
    energy = energies(seed).pow(4) + 1e-6  # heavy-tailed
    one = int(torch.randint(len(SPACE), (1,), generator=seeded(seed)))
    chosen, excluded = NeuronSet(SPACE, torch.tensor([one])), some(0.3, seed)
    stretch = SPACE.stretches[int(SPACE.stretch_of(torch.tensor([one])))]
    free = set(range(stretch.start, stretch.stop)) - set(excluded.flat.tolist()) - {one}
    assert matched_like(chosen, excluded, energy, seeded(seed)).flat.item() in nearest(energy, one, free)


def test_each_of_the_ten_nearest_is_drawn_as_often():
    space = NeuronSpace.dense(1, 50)
    chosen = NeuronSet(space, torch.tensor([25]))
    energy = torch.arange(50.0).exp()
    drawn = [matched_like(chosen, chosen, energy, seeded(seed)).flat.item() for seed in range(400)]
    assert set(drawn) == {*range(20, 25), *range(26, 31)}
    assert all(20 < drawn.count(flat) < 65 for flat in set(drawn))


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([10, 2000]), st.booleans())
def test_one_neuron_more_moves_the_controls_of_few_others(seed, nearest, excluded):
    """Whether a neuron passes the bar hangs on rounding; the controls of a whole set must not."""
    space = NeuronSpace.dense(2, 1000)
    energy = torch.rand(len(space), generator=seeded(seed), dtype=torch.float64)
    draw = partial(matched_like, energy=energy, nearest=nearest)
    flat = torch.randperm(len(space), generator=seeded(seed))
    chosen = NeuronSet(space, flat[:60])
    larger = chosen if excluded else NeuronSet(space, flat[:61])
    pool = NeuronSet(space, flat[60:61]) if excluded else chosen
    before, after = draw(chosen, chosen, generator=seeded(seed)), draw(larger, pool, generator=seeded(seed))
    assert len(before - after) <= 6


def test_near_neurons_draw_independently():
    """Two neurons far apart in energy, side by side in the layer: each pair of their ten is as likely."""
    space = NeuronSpace.dense(1, 60)
    energy = torch.arange(60.0).exp()
    chosen = NeuronSet(space, torch.tensor([20, 40]))
    pairs = [tuple(matched_like(chosen, chosen, energy, seeded(seed)).flat.tolist()) for seed in range(3000)]
    counts = torch.tensor([pairs.count(pair) for pair in set(pairs)]).double()
    assert len(counts) == 100
    assert float(((counts - 30).pow(2) / 30).sum()) < 150  # chi-squared with 99 degrees of freedom: .001 beyond 149


def test_the_strongest_neuron_chooses_first():
    """Two neurons with one strong and one weak free neuron: the strong one gets the strong one, whichever index is lower."""
    space = NeuronSpace.dense(1, 4)
    energy = torch.tensor([1.0, 1.1, 100.0, 90.0]).double()
    for chosen in ([0, 2], [1, 3]):
        flat = torch.tensor(chosen)
        drawn = matched_like(NeuronSet(space, flat), NeuronSet(space, flat), energy, seeded(), nearest=1)
        assert set(drawn.flat.tolist()) == {0, 1, 2, 3} - set(chosen)


def test_energy_is_compared_within_its_stretch():
    """A stretch whose every energy is higher than all others' still has neurons of low energy for a stretch."""
    space = NeuronSpace.dense(2, 50)
    energy = torch.cat([torch.arange(1, 51), 1e6 * torch.arange(1, 51)]).double()
    low = NeuronSet(space, torch.tensor([50, 51]))
    assert all(50 <= flat < 64 for flat in matched_like(low, low, energy, seeded()).flat)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(-500, 500))
def test_only_ratios_of_energies_matter(seed, shift):
    levels = torch.randint(0, 2000, (len(SPACE),), generator=seeded(seed)).double()
    chosen = some(0.1, seed)
    draw = [matched_like(chosen, chosen, ((levels + more) / 100).exp(), seeded(seed)) for more in (0, shift)]
    assert draw[0] == draw[1]


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_what_a_number_format_leaves_open_does_not_change_a_draw(seed):
    levels = torch.randint(0, 2000, (len(SPACE),), generator=seeded(seed)).double()
    energy, chosen = (levels / 100).exp(), some(0.1, seed)
    noise = 1 + 2e-3 * (energies(seed) - 0.5)
    assert matched_like(chosen, chosen, energy, seeded(seed)) == matched_like(
        chosen, chosen, energy * noise, seeded(seed)
    )


def test_a_neuron_that_writes_nothing_has_controls_that_write_least():
    space = NeuronSpace.dense(1, 50)
    energy = torch.cat([torch.zeros(3), torch.arange(1.0, 48.0)]).double()
    chosen = NeuronSet(space, torch.tensor([0]))
    drawn = {matched_like(chosen, chosen, energy, seeded(seed)).flat.item() for seed in range(60)}
    assert drawn <= set(range(1, 11))
    assert {1, 2} <= drawn


def test_a_heavy_tailed_layer_is_matched_where_a_decile_is_not():
    """Strong neurons of the highest decile: most of it is far below them, their nearest are not."""
    space = NeuronSpace.dense(1, 2000)
    energy = torch.rand(2000, generator=seeded(3), dtype=torch.float64).pow(-1.5)
    order = energy.argsort(descending=True)
    chosen = NeuronSet(space, order[10:110:3])
    draws = [matched_like(chosen, chosen, energy, seeded(seed)) for seed in range(20)]
    mean = sum(float(energy[one.flat].sum()) for one in draws) / 20
    assert LIKE[0] <= float(energy[chosen.flat].sum()) / mean <= LIKE[1]
    decile = order[: len(order) // 10]
    assert energy[chosen.flat].median() > 1.5 * energy[decile].median()


def test_the_ratio_is_the_sets_energy_over_the_controls_and_what_differs_is_said():
    space = NeuronSpace.dense(1, 4)
    one, two = NeuronSet(space, torch.tensor([0, 1])), NeuronSet(space, torch.tensor([2, 3]))
    energy = torch.tensor([3.0, 1.0, 1.0, 1.0])
    assert energy_ratio(one, two, energy) == 2.0
    assert energy_ratio(two, one, energy) == 0.5
    assert energy_ratio(one, two, torch.tensor([1.0, 0, 0, 0])) == float("inf")
    assert energy_ratio(one, two, torch.zeros(4)) == 1.0
    assert "less energy" in unlike(2.0)
    assert "more energy" in unlike(0.5)
    assert unlike(LIKE[0]) == unlike(LIKE[1]) == unlike(1.0) == ""


def test_kinds_are_named_and_others_refused():
    assert [one.name for one in kinds_of(list(CONTROLS))] == list(CONTROLS)
    for wrong in (["matched", "matched"], ["deciles"]):
        with pytest.raises(OptionError, match="Expected some of random, matched"):
            kinds_of(wrong)


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
        draw = random_like if energy is None else partial(matched_like, energy=energy)
        expected = draw(chosen, excluded, generator=seeded(seed))
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
