"""`NeuronSpace`: one flat axis, and the only arithmetic on it."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import FileError, OptionError
from lape.values.space import NeuronSpace

LAW = settings(deadline=None, max_examples=40)


@st.composite
def spaces(draw) -> NeuronSpace:
    """Layers of differing width: dense ones, several dense in one, experts, and experts with a dense one before or after."""
    stretches = []
    for layer in range(draw(st.integers(1, 4))):
        experts = list(range(draw(st.integers(0, 3))))
        before = [None] * draw(st.integers(0 if experts else 1, 2))
        after = [None] * draw(st.integers(0, 1))
        stretches += [(layer, expert, draw(st.integers(1, 6))) for expert in [*before, *experts, *after]]
    return NeuronSpace.of(stretches)


def addresses(space: NeuronSpace) -> list[tuple[int, int | None, int]]:
    """Every neuron's address, in order: within a layer's dense part, and within each expert, counted from 0."""
    named: list[tuple[int, int | None, int]] = []
    for stretch in space:
        before = sum((stretch.layer, stretch.expert) == name[:2] for name in named)
        named += [(stretch.layer, stretch.expert, before + index) for index in range(stretch.width)]
    return named


@LAW
@given(spaces())
def test_flat_numbers_every_address_in_order_without_gap(space):
    flat = [space.flat(layer, index, expert) for layer, expert, index in addresses(space)]
    assert flat == list(range(len(space)))
    assert space.addresses(torch.arange(len(space))).rows() == addresses(space)


@LAW
@given(spaces(), st.data())
def test_addresses_are_of_the_neurons_given_in_their_order(space, data):
    chosen = data.draw(st.lists(st.integers(0, len(space) - 1)))
    assert space.addresses(torch.tensor(chosen, dtype=torch.int64)).rows() == [addresses(space)[j] for j in chosen]


@LAW
@given(spaces(), st.data())
def test_split_gives_back_each_neurons_stretch_and_index(space, data):
    chosen = sorted(data.draw(st.sets(st.integers(0, len(space) - 1))))
    parts = space.split(torch.tensor(chosen, dtype=torch.int64))
    stretches = list(space)
    assert [stretches[k].start + i for k, local in parts.items() for i in local.tolist()] == chosen
    assert all(0 <= i < stretches[k].width for k, local in parts.items() for i in local.tolist())


@LAW
@given(spaces(), st.data())
def test_counts_add_up_to_the_neurons_given(space, data):
    chosen = data.draw(st.lists(st.integers(0, len(space) - 1), unique=True))
    counts = space.counts(torch.tensor(chosen, dtype=torch.int64)).tolist()
    assert counts == [sum(stretch.start <= j < stretch.stop for j in chosen) for stretch in space]


@LAW
@given(spaces())
def test_per_neuron_repeats_a_stretchs_value_over_its_neurons(space):
    values = torch.arange(2 * len(space.stretches)).reshape(2, -1)
    repeated = space.per_neuron(values)
    for k, stretch in enumerate(space):
        assert (repeated[:, stretch.start : stretch.stop] == values[:, k : k + 1]).all()
    assert repeated.shape == (2, len(space))


@LAW
@given(spaces())
def test_json_round_trip_is_identity(space):
    assert NeuronSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


def test_dense_is_layers_of_one_width():
    assert NeuronSpace.dense(3, 5) == NeuronSpace.of([(0, None, 5), (1, None, 5), (2, None, 5)])
    assert len(NeuronSpace.dense(3, 5)) == 15


def test_spaces_of_different_widths_or_layers_differ():
    space = NeuronSpace.of([(0, None, 4), (1, None, 6)])
    assert space != NeuronSpace.of([(0, None, 6), (1, None, 4)])
    assert space != NeuronSpace.of([(0, None, 4), (2, None, 6)])
    assert space != NeuronSpace.of([(0, None, 4), (1, 0, 6)])


def test_layers_come_once_and_in_order():
    assert NeuronSpace.of([(0, None, 2), (3, 0, 2), (3, 1, 2), (7, None, 2)]).layers == (0, 3, 7)


def test_an_empty_space_holds_nothing():
    space = NeuronSpace.of([])
    assert len(space) == 0
    assert space.layers == ()


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_outside_its_layer_is_refused_naming_the_range(index):
    with pytest.raises(OptionError, match="0 to 4"):
        NeuronSpace.dense(2, 5).flat(1, index)


def test_two_mlps_of_a_layer_are_counted_on_and_refused_past_the_last():
    space = NeuronSpace.of([(0, None, 4), (0, None, 3), (1, 2, 5)])
    assert [space.flat(0, index) for index in (0, 3, 4, 6)] == [0, 3, 4, 6]
    with pytest.raises(OptionError, match="layer 0 has neurons 0 to 6, not 7"):
        space.flat(0, 7)
    with pytest.raises(OptionError, match="layer 1, expert 2 has neurons 0 to 4, not 5"):
        space.flat(1, 5, expert=2)


@pytest.mark.parametrize(("layer", "expert"), [(2, None), (0, 0)])
def test_an_unknown_layer_or_expert_is_refused(layer, expert):
    with pytest.raises(OptionError, match=str(layer)):
        NeuronSpace.dense(2, 5).flat(layer, 0, expert)


def test_a_space_cannot_be_changed():
    with pytest.raises(AttributeError):
        NeuronSpace.dense(2, 5).stretches = ()


@pytest.mark.parametrize(
    "stretches",
    [
        [[0, 0, 4], [1, 1, 4], [2, 2, 4]],
        [[0, 1, 4]],
        [[0, 0, 4], [0, 2, 4]],
        [[0, 1, 4], [0, 0, 4]],
        [[0, 0, 4], [1, 0, 4], [1, 2, 4]],
        [[1, None, 4], [0, None, 4]],
        [[-1, None, 4]],
        [[0, -1, 4]],
        [[0, None, 0]],
        [[0, None, 2**40]],
        [[0, None, 1.5]],
        [[0, None, True]],
        [[0, None]],
        [],
    ],
)
def test_a_space_that_no_model_has_is_refused(stretches):
    with pytest.raises(FileError, match="The space"):
        NeuronSpace.from_json(stretches)


def test_a_layer_may_hold_several_dense_mlps_and_experts_twice():
    for stretches in (
        [[0, None, 4], [0, None, 4], [0, None, 4]],
        [[0, None, 4], [0, 0, 2], [0, 1, 2], [0, None, 3]],
        [[0, 0, 2], [0, 1, 2], [0, 0, 2]],
    ):
        assert NeuronSpace.from_json(stretches).to_json() == stretches
