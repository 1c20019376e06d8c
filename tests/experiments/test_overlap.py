"""How sets overlap beside chance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.stability import chance_jaccard
from lape.experiments.overlap import overlap_chance
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace

LAW = settings(deadline=None, max_examples=40)
SPACE = NeuronSpace.dense(2, 3000)


def neurons_of(sets, space: NeuronSpace = SPACE) -> LanguageNeurons:
    return LanguageNeurons(
        space, {k: NeuronSet(space, torch.tensor(sorted(indices), dtype=torch.int64)) for k, indices in sets.items()}
    )


@LAW
@given(st.dictionaries(st.sampled_from(["en", "fr", "zh", "ja"]), st.sets(st.integers(0, 40)), min_size=1))
def test_every_pair_comes_once_with_its_overlap_and_chance(sets):
    space = NeuronSpace.of([(0, None, 20), (1, None, 21)])
    neurons = neurons_of(sets, space)
    rows = overlap_chance(neurons).rows(named=True)
    assert [(row["a"], row["b"]) for row in rows] == list(combinations(sets, 2))
    for row in rows:
        a, b = sets[row["a"]], sets[row["b"]]
        assert row["shared"] == len(a & b)
        assert row["jaccard"] == (len(a & b) / len(a | b) if a | b else 0)
        assert row["chance"] == chance_jaccard(neurons[row["a"]], neurons[row["b"]])
        over = row["jaccard"] / row["chance"] if row["chance"] else None
        assert row["over_chance"] == (None if over is None else pytest.approx(over))


def test_random_sets_overlap_about_as_chance_says():
    random = np.random.default_rng(0)
    sets = {language: set(random.choice(len(SPACE), 900, replace=False).tolist()) for language in ("en", "fr", "zh")}
    assert overlap_chance(neurons_of(sets))["over_chance"].to_list() == pytest.approx([1] * 3, abs=0.25)
