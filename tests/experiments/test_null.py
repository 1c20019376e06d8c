"""The null of slices of one language: counts made so that its entropies, and the share below them, are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.errors import MismatchError, OptionError
from lape.experiments import experiments
from lape.experiments.context import Context
from lape.experiments.null import NullStudy, _pieces
from lape.experiments.null.run import null_entropy, topic_slices
from lape.measure.intervals import LEVELS, wilson
from lape.recording.record import record
from lape.study.options import study_options
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats
from support.made import EXPERTS, made_stats
from support.planted import LANGUAGES, planted, planted_texts, planted_tokenizer

SEVEN = ("en", "zh", "fr", "es", "vi", "id", "ja")
SPACE = NeuronSpace.dense(2, 500)
LAW = settings(deadline=None, max_examples=40)


def counted(fires, tokens):
    """(folds, neurons) fires and (folds,) tokens of one language."""
    fires, tokens = torch.as_tensor(fires), torch.as_tensor(tokens)
    return LanguageStats({"tokens": tokens, "routed": tokens[:, None].repeat(1, 2), "fires": fires})


def drawn(probabilities, tokens=2000, folds=8, seed=0):
    """Statistics of languages in which neurons fire with (languages, neurons) or (languages, folds, neurons) probabilities."""
    random = np.random.default_rng(seed)
    by_language = {}
    for language, p in zip(SEVEN, probabilities, strict=False):
        fires = random.binomial(tokens, np.broadcast_to(p, (folds, len(SPACE))))
        by_language[language] = counted(fires, [tokens] * folds)
    return ActivationStats(SPACE, by_language, {})


def rates(languages=7, seed=1):
    """The same probability in every language."""
    p = np.random.default_rng(seed).beta(0.5, 1.5, len(SPACE))
    return np.broadcast_to(p, (languages, len(SPACE))).copy()


def specific(share=20, seed=1):
    """The first neurons fire in one language only."""
    p = rates(seed=seed)
    for j in range(share):
        p[:, j] = 0.001
        p[j % 7, j] = 0.9
    return p


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_null_of_identical_slices_is_the_entropy_of_an_even_spread(count):
    fires = np.random.default_rng(0).integers(1, 400, len(SPACE))
    same = {k: counted(np.tile(fires, (8, 1)), [500] * 8) for k in SEVEN[:count]}
    stats = ActivationStats(SPACE, same, {})
    table = null_entropy(identify(stats, reliability=False), stats)
    assert table["first_percentile"].to_list() == pytest.approx([math.log(count)] * count)
    assert table["median"].to_list() == pytest.approx([math.log(count)] * count)
    assert table["slices"].to_list() == [count] * count
    assert table["tokens"].to_list() == [500] * count


def test_neurons_of_one_language_lie_below_any_null():
    stats = drawn(specific())
    neurons = identify(stats, reliability=False, rate=0.02)
    assert set(range(20)) == set(neurons.union)
    table = null_entropy(neurons, stats)
    assert table["share_below"].to_list() == [1.0] * 7
    assert table["high"].to_list() == pytest.approx([1.0] * 7)
    assert table["low"].to_list() == pytest.approx([wilson(20, 20).interval[1]] * 7)
    assert bool((table["real_highest"] < table["first_percentile"]).all())
    assert bool((table["highest_chosen"] > table["real_highest"]).all())
    assert table["neurons"].to_list() == [20] * 7
    for row in table.iter_rows(named=True):
        assert [row["quantiles"][LEVELS.index(end)] for end in (0.025, 0.975)] == [row["low"], row["high"]]


def test_where_languages_differ_no_more_than_slices_few_lie_below():
    """What LAPE chose by chance is measured again in part of the text, and is then like any other."""
    stats = drawn(rates())
    neurons = identify(stats, reliability=False, rate=0.1)
    table = null_entropy(neurons, stats)
    assert table["share_below"].max() < 0.3
    assert table["chosen_in_null"].min() > 50


def test_neurons_that_follow_the_topic_move_the_null():
    p = np.repeat(specific()[:, None, :], 8, 1)
    for j in range(100, 130):  # each fires in one slice alone, in every language
        p[:, :, j] = 0.001
        p[:, j % 7, j] = 0.9
    stats = drawn(p)
    neurons = identify(stats, reliability=False, rate=0.02)
    plain = null_entropy(neurons, drawn(specific()))
    moved = null_entropy(neurons, stats)
    assert bool((moved["first_percentile"] < plain["first_percentile"] - 1).all())
    assert bool((moved["highest_chosen"] < 0.2).all())
    assert moved["share_below"].max() < 0.8


def test_the_first_percentile_is_of_what_passes_the_filter_among_slices():
    stats = made_stats(3, SEVEN, SPACE, tokens=500)
    for (
        one
    ) in stats.by_language.values():  # as many tokens in each slice as are kept, so nothing is thinned in the null
        one.tensors["tokens"] = torch.full((8,), 1000)
        one.tensors["routed"] = torch.full((8, 2), 1000)
        one.tensors["fires"] = one.tensors["fires"].clamp(max=1000)
    table = null_entropy(identify(stats, reliability=False), stats, share=0.25)
    for language, row in zip(SEVEN, table.iter_rows(named=True), strict=True):
        p = stats[language].fires[:7].double() / 1000
        bar = sorted(p.flatten().tolist())[round(0.95 * p.numel()) - 1]
        entropies = []
        for column in p.T:
            if bool((column > bar).any()):
                shares = column / column.sum()
                entropies.append(-sum(float(s) * math.log(s) for s in shares if s > 0))
        assert row["candidates"] == len(entropies)
        assert row["first_percentile"] == pytest.approx(np.quantile(entropies, 0.25))
        assert row["median"] == pytest.approx(np.median(entropies))


def test_everything_is_thinned_to_the_smallest_part():
    """Languages of unequal length: each row's tokens are those of the smallest fold of its source."""
    by_language = {}
    random = np.random.default_rng(0)
    for k, language in enumerate(SEVEN):
        tokens = random.integers(1000 * (k + 1), 1000 * (k + 2), 8)
        by_language[language] = counted(random.binomial(tokens[:, None], rates()[0]), tokens)
    stats = ActivationStats(SPACE, by_language, {})
    neurons = identify(stats, reliability=False)
    table = null_entropy(neurons, stats)
    for language, tokens in zip(SEVEN, table["tokens"], strict=True):
        smallest = min(int(stats[language].tokens[:7].min()), *(int(stats[k].tokens.sum()) for k in SEVEN))
        assert tokens == smallest
    assert null_entropy(neurons, stats).equals(table)
    assert not null_entropy(neurons, stats, seed=1).equals(table)


def test_thinning_keeps_probabilities_but_for_chance_and_raises_a_rare_null():
    """Fewer tokens, more noise, lower entropies: real ones must be thinned as the null's are."""
    many, few = drawn(rates(), tokens=20000), drawn(rates(), tokens=200)
    a, b = (null_entropy(identify(one, reliability=False), one) for one in (many, few))
    assert bool((a["first_percentile"] > b["first_percentile"]).all())
    uneven = {k: many[k] for k in SEVEN[:6]} | {"ja": few["ja"]}
    stats = ActivationStats(SPACE, uneven, {})
    thinned = null_entropy(identify(stats, reliability=False), stats)
    assert thinned["tokens"].to_list() == [1600] * 6 + [200]
    assert thinned["median"][0] == pytest.approx(math.log(7), abs=0.02)


def test_topics_recorded_as_languages_are_taken_instead_of_folds():
    stats = drawn(specific())
    neurons = identify(stats, reliability=False)
    topics = {}
    for language in ("fr", "ja"):
        folds = stats[language]
        made = {
            f"{language}-x-slice{k + 1}": counted(folds.fires[k : k + 1], folds.tokens[k : k + 1]) for k in range(7)
        }
        topics[language] = ActivationStats(SPACE, made, {})
    given_topics = null_entropy(neurons, stats, topics=topics)
    assert given_topics["language"].to_list() == ["fr", "ja"]
    whole = null_entropy(neurons, stats)
    for row in given_topics.iter_rows(named=True):
        same = next(other for other in whole.iter_rows(named=True) if other["language"] == row["language"])
        assert row == {**same, "kind": "topics"}
        assert same["kind"] == "folds"


def test_experts_and_empty_sets_have_a_null_too():
    stats = made_stats(0, ("en", "fr", "zh"), EXPERTS)
    nothing = LanguageNeurons(EXPERTS, {"fr": NeuronSet(EXPERTS, torch.empty(0))}, method="lape")
    table = null_entropy(nothing, stats)
    assert table["share_below"].null_count() == table["low"].null_count() == 3
    assert table["neurons"].to_list() == [0, 0, 0]
    assert len(null_entropy(identify(stats, reliability=False, rate=0.3), stats)) == 3


texts = st.lists(st.integers(1, 50).map(lambda n: "a" * n), min_size=2, max_size=40)


@LAW
@given(texts, st.integers(2, 7))
def test_topic_slices_are_runs_of_documents_in_order(documents, count):
    if len(documents) < count:
        with pytest.raises(OptionError, match="slices"):
            topic_slices("fr", documents, count)
        return
    slices = topic_slices("fr", documents, count)
    assert list(slices) == [f"fr-x-slice{k + 1}" for k in range(count)]
    assert [one for part in slices.values() for one in part.texts] == documents
    sizes = [sum(map(len, part.texts)) for part in slices.values()]
    assert min(sizes) > 0
    if len(documents) > 10 * count:
        assert max(sizes) - min(sizes) <= 2 * max(map(len, documents))


def test_slices_of_a_private_tag_are_tags_too():
    assert list(topic_slices("fr-x-mine", ["a", "b"], 2)) == ["fr-x-mine-slice1", "fr-x-mine-slice2"]


def test_what_has_no_null_is_refused():
    stats = drawn(rates())
    neurons = identify(stats, reliability=False)
    with pytest.raises(MismatchError, match="model with"):
        null_entropy(neurons, made_stats(0))
    one_fold = ActivationStats.from_counts(["en", "fr"], [9, 9], torch.ones(2, 2, 500, dtype=torch.int64))
    with pytest.raises(OptionError, match="folds"):
        null_entropy(neurons, one_fold)
    with pytest.raises(OptionError, match="different numbers"):
        null_entropy(neurons, stats, topics={"fr": drawn(rates()[:3])})
    with pytest.raises(OptionError, match="share is"):
        null_entropy(neurons, stats, share=0)
    empty = ActivationStats(
        SPACE, {k: counted(torch.zeros(8, len(SPACE), dtype=torch.int64), [0] * 8) for k in SEVEN}, {}
    )
    with pytest.raises(OptionError, match="no token"):
        null_entropy(neurons, empty)


def test_a_study_with_the_recorded_text_has_slices_of_neighbouring_text_too(tmp_path):
    texts = planted_texts(1, 40)
    stats = record(planted(), planted_tokenizer(), texts, row_tokens=64)
    options, null = study_options()(), experiments()["null"]
    runs = {
        name: null.checked(
            null.run(
                Context(planted(), planted_tokenizer(), stats, {}, options, tmp_path / name, given),
                NullStudy(topic_tokens=80),
            )
        )["null"]
        for name, given in (("with", texts), ("without", {}))
    }
    over = [language for language in LANGUAGES if language != "en"]
    rows = runs["with"].filter(kind="topics")
    assert rows["language"].to_list() == over
    assert set(rows["tokens"]) == {80}
    assert runs["with"].filter(kind="folds").equals(runs["without"])
    assert not len(runs["without"].filter(kind="topics"))


def test_the_pieces_of_a_text_are_its_documents_or_the_lines_of_one_that_has_too_few():
    assert _pieces(Documents(["a", "", "b\nc"]), 3) == ["a", "b\nc"]
    assert _pieces(Documents(["a\n\nb\nc"]), 2) == ["a", "b", "c"]
