"""Where sets lie in the depth of a model: against the published files, by hand, and what the interval is an interval of."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.experiments.layers.run import ALL, LAYERS, layers
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.made import EXPERTS

LAW = settings(deadline=None, max_examples=40)
# Neurons per layer in three published files (layer 0 first).
LLAMA_7B = {
    "en": "17 0 0 0 2 3 0 1 0 0 0 3 1 2 1 1 3 3 1 2 3 3 0 2 0 3 2 2 5 7 18 10",
    "zh": "108 32 1 0 3 5 9 5 2 3 5 7 8 19 13 7 28 11 17 20 19 22 33 20 20 11 18 14 15 23 36 49",
    "fr": "220 39 2 0 6 5 10 1 1 3 1 5 10 7 12 3 17 13 6 18 33 21 60 56 78 80 86 50 49 44 54 32",
    "es": "195 27 2 0 4 4 8 1 0 4 0 4 8 5 10 1 14 11 7 8 15 23 42 31 58 54 72 59 48 39 52 32",
    "vi": "274 16 0 0 4 2 8 3 1 3 5 3 11 16 13 5 15 19 16 20 35 26 38 49 33 30 43 35 36 27 31 19",
    "id": "221 15 2 0 4 3 4 1 1 4 2 0 8 8 9 4 12 16 13 24 29 49 84 84 77 78 88 64 58 40 38 28",
    "ja": "109 31 0 0 3 4 4 3 3 5 6 6 11 18 15 15 20 18 21 26 32 13 35 18 19 17 7 13 14 17 29 50",
}
BLOOM_7B = {
    "en": "0 0 0 0 0 0 0 0 0 1 0 0 1 0 1 1 3 2 3 1 11 8 9 21 24 24 34 62 86 153",
    "zh": "0 0 0 0 1 0 1 0 0 2 0 0 1 1 2 0 0 1 4 1 7 8 19 24 34 37 46 79 126 259",
    "fr": "0 0 0 0 0 0 0 0 1 1 2 0 1 1 1 2 1 3 3 2 7 9 11 24 24 47 66 106 155 213",
    "es": "0 0 0 0 0 0 0 0 0 1 2 0 1 1 0 2 1 2 4 1 8 9 12 24 28 54 93 151 240 284",
    "vi": "0 0 0 0 0 0 1 1 0 0 1 0 0 0 0 1 0 0 2 1 3 7 12 26 35 40 70 83 103 165",
    "id": "0 0 0 0 0 0 0 0 0 0 1 0 0 0 0 2 0 1 2 1 4 9 15 46 90 180 330 562 817 763",
}
PHI_2 = {
    "en": "0 1 2 2 1 0 0 5 3 2 1 0 1 0 0 1 1 1 2 1 4 4 2 3 1 2 0 1 0 2 5 4",
    "zh": "5 4 5 3 2 2 1 1 3 4 6 4 2 3 2 5 2 5 5 7 4 4 7 8 6 5 10 8 13 15 14 31",
    "fr": "0 1 1 0 3 7 2 2 3 2 0 1 1 1 0 3 0 1 3 3 7 2 12 15 23 65 103 171 205 182 161 52",
    "es": "0 1 1 0 6 6 1 3 0 2 0 2 2 1 0 2 0 1 3 3 6 3 6 11 20 55 110 186 229 257 160 42",
    "vi": "0 5 3 2 6 17 8 4 9 8 11 5 5 6 7 3 0 3 3 7 13 11 18 16 36 27 60 67 50 62 22 17",
    "id": "0 0 0 0 2 6 2 3 6 9 2 0 2 0 3 2 0 2 2 5 6 12 22 28 52 100 109 108 107 100 58 16",
}


def with_counts(width: int, counts: dict[str, list[int]]) -> LanguageNeurons:
    """Sets with so many neurons in each layer, the first ones of it, so that languages share as many as they can."""
    space = NeuronSpace.dense(len(next(iter(counts.values()))), width)
    sets = {
        language: NeuronSet(
            space, torch.tensor([layer * width + j for layer, n in enumerate(row) for j in range(n)], dtype=torch.int64)
        )
        for language, row in counts.items()
    }
    return LanguageNeurons(space, sets)


def row_of(neurons: LanguageNeurons, language: str, **options) -> dict:
    return layers(neurons, **options).row(by_predicate=pl.col("language") == language, named=True)


# Published: in percent of all assignments, the bottom two layers, bottom quarter, middle half, top quarter; the fullest layer.
@pytest.mark.parametrize(
    ("width", "published", "shares", "fullest"),
    [
        (11008, LLAMA_7B, (26, 28, 32, 40), 0),
        (16384, BLOOM_7B, (0, 0, 4, 96), 29),
        (10240, PHI_2, (0, 3, 11, 85), 29),
    ],
    ids=["LLaMA-2-7B", "BLOOM-7B1", "Phi-2"],
)
def test_the_published_files_give_the_published_shares(width, published, shares, fullest):
    counts = {language: [int(n) for n in row.split()] for language, row in published.items()}
    row = row_of(with_counts(width, counts), ALL, resamples=2)
    found = [row[name] for name in ("bottom_two", "bottom_quarter", "middle_half", "top_quarter")]
    assert found == pytest.approx([share / 100 for share in shares], abs=0.0055)
    assert sum(found[1:]) == pytest.approx(1)
    assert row["fullest"] == fullest
    assert row["neurons"] == sum(map(sum, counts.values()))


def test_a_place_without_neurons_has_the_score_interval_of_none_among_so_many():
    row = row_of(with_counts(99, {"fr": [0, 0, 40, 56]}), "fr", resamples=20)
    ends = (row["first_layer"], row["first_layer_low"], row["first_layer_high"])
    assert ends == pytest.approx((0.0, 0.0, 1.96**2 / (96 + 1.96**2)), abs=1e-5)
    assert row["bottom_two_quantiles"] == row["first_layer_quantiles"]
    assert row["top_quarter_low"] > 0.48, "neurons are there and elsewhere: drawn anew, as always"


COUNTS = st.integers(1, 9).flatmap(
    lambda depth: st.dictionaries(
        st.sampled_from(["en", "fr", "zh"]), st.lists(st.integers(0, 5), min_size=depth, max_size=depth), min_size=1
    )
)


@LAW
@given(COUNTS)
def test_every_column_is_what_the_counts_say(counts):
    neurons = with_counts(5, counts)
    depth = len(next(iter(counts.values())))
    quarter = max(1, depth // 4)
    everything = [sum(column) for column in zip(*counts.values(), strict=True)]
    for language, row in {**counts, ALL: everything}.items():
        found = row_of(neurons, language, resamples=2)
        total = sum(row)
        assert found["neurons"] == total
        assert found["first_layer_chance"] == pytest.approx(1 / depth)
        assert found["bottom_two_chance"] == pytest.approx(min(2, depth) / depth)
        assert found["top_quarter_chance"] == pytest.approx(quarter / depth)
        if not total:
            chances = ("language", "neurons", "first_layer_chance", "bottom_two_chance", "top_quarter_chance")
            assert all((found[name] is not None) == (name in chances) for name in LAYERS)
            continue
        assert found["first_layer"] == pytest.approx(row[0] / total)
        assert found["bottom_two"] == pytest.approx(sum(row[:2]) / total)
        assert found["bottom_quarter"] == pytest.approx(sum(row[:quarter]) / total)
        assert found["top_quarter"] == pytest.approx(sum(row[-quarter:]) / total)
        assert found["middle_half"] == pytest.approx(sum(row[quarter:-quarter]) / total)
        assert found["fullest"] == row.index(max(row))
        centre = Fraction(sum(at * n for at, n in enumerate(row)), total * max(1, depth - 1))
        assert found["centre"] == pytest.approx(float(centre))


@pytest.mark.parametrize(("depth", "quarter"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (30, 7), (32, 8)])
def test_a_quarter_is_a_fourth_of_the_depth_rounded_down_and_at_least_one_layer(depth, quarter):
    row = row_of(with_counts(1, {"fr": [1] * depth}), "fr")
    for name in ("bottom_quarter", "top_quarter", "top_quarter_chance"):
        assert row[name] == pytest.approx(quarter / depth)


def test_a_set_of_all_neurons_lies_as_chance_would_have_it_whatever_the_widths():
    space = NeuronSpace.of([(3, None, 10), (5, None, 90), (6, None, 40), (8, None, 60)])
    row = row_of(LanguageNeurons(space, {"fr": NeuronSet(space, torch.arange(200))}), "fr")
    assert row["bottom_two"] == row["bottom_two_chance"] == 0.5
    assert row["top_quarter"] == row["top_quarter_chance"] == 0.3
    assert row["centre"] == pytest.approx((90 * 1 + 40 * 2 + 60 * 3) / 200 / 3)
    assert row["fullest"] == 5, "a layer goes by its own number"


def test_the_experts_of_a_layer_are_one_layer():
    row = row_of(LanguageNeurons(EXPERTS, {"fr": NeuronSet(EXPERTS, torch.tensor([0, 5, 9]))}), "fr")
    assert row["centre"] == pytest.approx(2 / 3)
    assert row["top_quarter_chance"] == pytest.approx(8 / 13)


# Intervals


@pytest.mark.parametrize(("size", "given_"), [(19, False), (20, True)])
def test_under_20_neurons_there_is_no_interval(size, given_):
    neurons = with_counts(size, {"fr": [size // 2, 0, 0, size - size // 2], "zh": [0, 0, 0, 1]})
    for language in ("fr", ALL):
        row = row_of(neurons, language)
        ends = [
            row[f"{name}_{end}"] for name in ("first_layer", "bottom_two", "top_quarter") for end in ("low", "high")
        ]
        assert [end is not None for end in ends] == [given_] * 6


def test_the_interval_is_that_of_a_bootstrap_over_neurons():
    neurons = with_counts(200, {"fr": [40, 30, 10, 80], "zh": [100, 0, 20, 0]})
    random = np.random.default_rng(1)
    everything = sorted({j for found in neurons.values() for j in found})
    weights = np.array([sum(j in found for found in neurons.values()) for j in everything])
    for language, units, weight in (
        ("fr", list(neurons["fr"]), np.ones(160)),
        (ALL, everything, weights),
    ):
        layer = np.array(units) // 200
        drawn = random.integers(0, len(units), (4000, len(units)))
        row = row_of(neurons, language, resamples=4000)
        for name, inside in (("first_layer", layer < 1), ("bottom_two", layer < 2), ("top_quarter", layer == 3)):
            shares = (weight * inside)[drawn].sum(1) / weight[drawn].sum(1)
            by_hand = np.quantile(shares, [0.025, 0.975])
            assert [row[f"{name}_low"], row[f"{name}_high"]] == pytest.approx(by_hand, abs=0.015)
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


def test_neurons_that_serve_every_language_are_no_more_evidence_than_one_language():
    row = [20, 10, 5, 40]
    one, three = with_counts(60, {"fr": row}), with_counts(60, {"fr": row, "zh": row, "en": row})
    a, b = (row_of(neurons, ALL) for neurons in (one, three))
    for name in LAYERS:
        if name != "neurons":
            assert b[name] == (pytest.approx(a[name]) if name != "language" else a[name]), name


def test_the_same_seed_gives_the_same_intervals():
    neurons = with_counts(60, {"fr": [20, 15, 5, 40]})
    assert layers(neurons, seed=3).equals(layers(neurons, seed=3))
    assert not layers(neurons, seed=3, resamples=50).equals(layers(neurons, seed=4, resamples=50))
