"""How sets overlap beside chance, and whether languages that are alike share more neurons."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.detect.stability import chance_jaccard
from lape.errors import OptionError
from lape.experiments.overlap.run import mantel, overlap_chance, overlap_tests, relations, token_overlap
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace

LAW = settings(deadline=None, max_examples=40)
SPACE = NeuronSpace.dense(2, 3000)


def neurons_of(sets, space: NeuronSpace = SPACE) -> LanguageNeurons:
    return LanguageNeurons(
        space, {k: NeuronSet(space, torch.tensor(sorted(indices), dtype=torch.int64)) for k, indices in sets.items()}
    )


def planted(shared: dict[tuple[str, str], int], size: int = 200) -> LanguageNeurons:
    """Sets of one size, in which two languages share as many neurons as is said."""
    sets: dict[str, set[int]] = {language: set() for pair in shared for language in pair}
    free = iter(range(len(SPACE)))
    for (a, b), count in shared.items():
        both = {next(free) for _ in range(count)}
        sets[a] |= both
        sets[b] |= both
    for own in sets.values():
        own |= {next(free) for _ in range(size - len(own))}
    return neurons_of(sets)


def as_alike(matrix: np.ndarray, languages: list[str]) -> LanguageNeurons:
    """Sets whose overlap has the order of a likeness."""
    _, step = np.unique(matrix.round(9), return_inverse=True)
    step = step.reshape(matrix.shape)
    return planted({(a, b): 1 + int(step[i, j]) for (i, a), (j, b) in combinations(enumerate(languages), 2)})


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


# Relations


LANGUAGES = ["en", "de", "fr", "es", "ja", "zh", "ru"]


def rows_of(neurons, **options) -> dict[str, dict]:
    return overlap_tests(neurons, **options).rows_by_key("relation", named=True, unique=True)


@pytest.mark.parametrize("relation", ["genealogy", "script"])
def test_an_overlap_planted_along_a_relation_gives_its_smallest_p(relation):
    matrix = relations(LANGUAGES)[relation]
    row = rows_of(as_alike(matrix, LANGUAGES))[relation]
    assert row["r"] == pytest.approx(1)
    assert row["p"] == row["p_smallest"] < 0.05
    assert (row["languages"], row["pairs"], row["permutations"], row["note"]) == (7, 21, 5040, "")


def test_relations_are_tested_separately():
    along_script = rows_of(as_alike(relations(LANGUAGES)["script"], LANGUAGES))
    assert along_script["genealogy"]["r"] < along_script["script"]["r"]
    assert along_script["genealogy"]["p"] > along_script["genealogy"]["p_smallest"]


def test_every_row_is_the_test_of_that_relation():
    random = np.random.default_rng(3)
    neurons = planted({pair: int(random.integers(1, 25)) for pair in combinations(LANGUAGES, 2)})
    tokens = {language: random.integers(0, 50, 30) for language in LANGUAGES}
    overlap = neurons.overlap()["jaccard"].to_numpy().reshape(7, 7)
    rows = rows_of(neurons, tokens=tokens)
    for name, likeness in {**relations(LANGUAGES), "token overlap": token_overlap(tokens)}.items():
        row = rows[name]
        assert (row["r"], row["p"], row["permutations"]) == mantel(overlap, likeness)
        assert row["p_smallest"] == mantel(likeness, likeness).p
    assert list(rows) == ["genealogy", "script", "token overlap"]


def test_where_one_pair_alone_is_alike_the_smallest_p_is_one_of_the_pairs():
    languages = ["en", "fr", "vi", "id", "zh"]
    row = rows_of(as_alike(relations(languages)["genealogy"], languages))["genealogy"]
    assert row["p"] == row["p_smallest"] == 1 / 10


def test_tokens_go_by_language_not_by_order():
    random = np.random.default_rng(3)
    tokens = {language: random.integers(0, 50, 30) for language in LANGUAGES}
    neurons = as_alike(token_overlap(tokens), LANGUAGES)
    backwards = dict(reversed([("fra_Latn" if k == "fr" else k, v) for k, v in tokens.items()]))
    assert overlap_tests(neurons, tokens=backwards).equals(overlap_tests(neurons, tokens=tokens))
    assert rows_of(neurons, tokens=tokens)["token overlap"]["p"] < 0.02


def test_without_tokens_that_relation_is_not_tested_and_says_so():
    row = rows_of(as_alike(relations(LANGUAGES)["script"], LANGUAGES))["token overlap"]
    assert [row[name] for name in ("r", "p", "p_smallest", "permutations")] == [None] * 4
    assert row["languages"] == row["pairs"] == 0
    assert "not tested" in row["note"]


def test_a_language_with_no_known_place_is_left_out_of_that_test_alone():
    languages = [*LANGUAGES, "eo"]
    rows = rows_of(as_alike(relations(languages)["script"], languages), permutations=99)
    assert (rows["genealogy"]["languages"], rows["genealogy"]["note"]) == (7, "the relation is not known for eo")
    assert rows["genealogy"]["permutations"] == 5040
    assert (rows["script"]["languages"], rows["script"]["note"], rows["script"]["permutations"]) == (8, "", 100)


@pytest.mark.parametrize(("size", "left_out"), [(19, True), (20, False)])
def test_a_set_under_20_neurons_is_left_out_and_named(size, left_out):
    neurons = as_alike(relations(LANGUAGES)["genealogy"], LANGUAGES)
    cut = {k: list(one)[:size] if k == "ja" else list(one) for k, one in neurons.items()}
    row = rows_of(neurons_of(cut))["genealogy"]
    assert row["languages"] == (6 if left_out else 7)
    assert ("ja" in row["note"]) == left_out


@pytest.mark.parametrize(
    ("languages", "relation", "said"),
    [
        (["en", "fr", "vi", "id"], "script", "same for every pair"),
        (["zh", "ja", "vi", "id"], "genealogy", "same for every pair"),
        (["en", "fr", "zh"], "genealogy", "3 languages"),
    ],
)
def test_a_relation_that_cannot_be_tested_says_why(languages, relation, said):
    row = rows_of(planted({pair: 5 + k for k, pair in enumerate(combinations(languages, 2))}))[relation]
    assert row["p"] is None
    assert said in row["note"]


def test_over_chance_does_not_mind_how_large_a_set_is():
    """Everything overlaps as chance has it, but sizes follow a family: large sets share more, and only their Jaccard says so."""
    random = np.random.default_rng(0)
    space = NeuronSpace.dense(1, 20000)
    sizes = {"en": 6000, "de": 6000, "nl": 6000, "ja": 600, "ko": 600, "zh": 600, "vi": 600}
    neurons = neurons_of({k: set(random.choice(20000, n, replace=False).tolist()) for k, n in sizes.items()}, space)
    by_jaccard = rows_of(neurons)["genealogy"]
    over_chance = rows_of(neurons, measure="over_chance")["genealogy"]
    assert by_jaccard["p"] < 0.05
    assert over_chance["p"] > 0.05


def test_options_without_sense_are_refused():
    neurons = as_alike(relations(LANGUAGES)["script"], LANGUAGES)
    with pytest.raises(OptionError, match="measure is 'dice'"):
        overlap_tests(neurons, measure="dice")
    with pytest.raises(OptionError, match="permutations is 0"):
        overlap_tests(neurons, permutations=0)
