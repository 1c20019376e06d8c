"""The axis over attention heads: laws, and that it is none over neurons."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lape.errors import MismatchError, OptionError
from lape.values.heads import HeadSpace
from lape.values.neurons import NeuronSet
from lape.values.same import check_same_model
from lape.values.space import NeuronSpace

COUNTS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=5)


@given(COUNTS)
def test_heads_share_all_channels_out_in_order(counts):
    space = HeadSpace.laid_out((2 * k, count, width) for k, (count, width) in enumerate(counts))
    named = [(2 * k, head) for k, (count, _) in enumerate(counts) for head in range(count)]
    assert torch.cat([space.channels(*one) for one in named]).tolist() == [*range(len(space))]
    assert space.heads(torch.arange(len(space))) == named
    assert [space.heads(space.channels(*one)) for one in named] == [[one] for one in named]
    assert f"{len(named):,} attention heads" in str(space)


@given(COUNTS)
def test_a_set_of_heads_is_none_of_neurons_even_where_there_are_as_many(counts):
    space = HeadSpace.laid_out((k, count, width) for k, (count, width) in enumerate(counts))
    neurons = NeuronSpace.of((k, None, count * width) for k, (count, width) in enumerate(counts))
    assert space != neurons
    assert NeuronSet(space, torch.tensor([0])) != NeuronSet(neurons, torch.tensor([0]))
    with pytest.raises(MismatchError, match="attention heads"):
        check_same_model(neurons=NeuronSet(space, torch.tensor([0])), model=neurons)


def test_a_head_that_is_not_there_is_refused():
    space = HeadSpace.laid_out([(3, 4, 8)])
    with pytest.raises(OptionError, match="Layer 3 has attention heads 0 to 3, not 4"):
        space.channels(3, 4)
    with pytest.raises(OptionError, match=r"There is no layer 0 with attention heads\. Expected one of 3"):
        space.channels(0, 0)


def test_a_set_says_how_many_heads_it_holds():
    space = HeadSpace.laid_out([(0, 4, 8), (1, 4, 8)])
    chosen = NeuronSet(space, torch.cat([space.channels(0, 1), space.channels(1, 3)]))
    assert repr(chosen).startswith("NeuronSet(2 of 8 attention heads (64 channels)")


def test_heads_are_not_kept_as_neurons():
    with pytest.raises(OptionError, match="cannot be kept as neurons are"):
        HeadSpace.laid_out([(0, 4, 8)]).to_json()
