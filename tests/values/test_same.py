"""What is of one model passes, in whatever order it is given; what is not is said, each with what it is of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lape.errors import MismatchError
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.same import check_same_model
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats

SPACES = [NeuronSpace.dense(3, 7), NeuronSpace.dense(3, 5), NeuronSpace.of([(0, None, 7), (1, 0, 7), (1, 1, 7)])]
NAMES = ("neurons", "statistics", "others", "model")


def made(space, checksum):
    manifest = {} if checksum is None else {"model": {"checksum": checksum}}
    return SimpleNamespace(space=SPACES[space], manifest=manifest)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, "a" * 64, "b" * 64])), min_size=1, max_size=4))
def test_one_shape_and_one_known_checksum_pass_and_nothing_else(kinds):
    things = {name: made(*kind) for name, kind in zip(NAMES, kinds, strict=False)}
    shapes, sums = {space for space, _ in kinds}, {checksum for _, checksum in kinds} - {None}
    if len(shapes) == 1 and len(sums) < 2:
        check_same_model(**things)
        return
    with pytest.raises(MismatchError) as error:
        check_same_model(**things)
    said = str(error.value)
    for name, (space, _) in zip(NAMES, kinds, strict=False):
        if len(shapes) > 1:
            assert ("this model has" if name == "model" else f"he {name} ") in said
            assert str(SPACES[space]) in said
    if len(shapes) == 1:
        assert all(f"{checksum[:12]}…" in said for checksum in sums)
    check_same_model(**dict.fromkeys(things, SPACES[0]))


def test_a_bare_space_is_not_judged_by_a_checksum():
    a, b = made(0, "a" * 64), made(0, "b" * 64)
    check_same_model(neurons=a.space, statistics=b)
    check_same_model(neurons=NeuronSet(SPACES[0], torch.tensor([1])), statistics=b)
    with pytest.raises(MismatchError, match="Use those of one model"):
        check_same_model(neurons=a, statistics=b)


def test_neurons_and_statistics_are_compared_by_their_manifests():
    stats = ActivationStats(SPACES[0], {}, {"model": {"checksum": "1" * 64}})
    other = LanguageNeurons(SPACES[0], {}, manifest={"model": {"checksum": "2" * 64}})
    check_same_model(neurons=LanguageNeurons(SPACES[0], {}), statistics=stats)
    with pytest.raises(MismatchError) as error:
        check_same_model(neurons=other, statistics=stats)
    assert str(error.value) == (
        "The neurons were made with a model, the statistics with another: checksum 222222222222… and 111111111111…. "
        "Use those of one model, recorded with the same tokenizer and options."
    )


def test_the_model_that_runs_is_to_be_recorded():
    expected = r"^The slices of zh-Hant belong to a model with 21 neurons.*, this model has 15 neurons.*lape record, lape identify\.$"
    with pytest.raises(MismatchError, match=expected):
        check_same_model(**{"slices of zh-Hant": SPACES[0], "model": SPACES[1]})
