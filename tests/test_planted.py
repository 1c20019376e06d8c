"""Every way of choosing on the planted model: which kinds of neurons it must find, and which it must miss."""

from __future__ import annotations

import copy
import random as dice
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from scipy.stats import binom

from lape import identify, perplexity, record
from lape.detect import DETECTORS
from lape.detect.lape import percentile
from support.planted import (
    DEPTH,
    KINDS,
    LANGUAGES,
    PAIRS,
    WIDTH,
    kinds,
    losses,
    neurons_of,
    planted,
    planted_stats,
    planted_texts,
    planted_tokenizer,
    zeroed,
)

ALL = {flat for kind in KINDS for flat in neurons_of(kind)}


pytestmark = pytest.mark.usefixtures("one_thread")


# The model is what it is said to be


@pytest.fixture(scope="module")
def damage() -> dict[int, dict[str, float]]:
    """Planted neuron, and some of the background -> language -> nats per token that its exact ablation costs."""
    texts = planted_texts(1, 15)
    base = losses(planted(), texts)
    others = dice.Random(0).sample(sorted(set(range(DEPTH * WIDTH)) - ALL), 20)
    result = {}
    for flat in [*ALL, *others]:
        with zeroed(planted(), flat):
            after = losses(planted(), texts)
        result[flat] = {language: after[language] - base[language] for language in LANGUAGES}
    return result


def test_exact_ablation_hurts_the_languages_that_a_neuron_serves_and_no_other(damage):
    for layer in range(DEPTH):
        for neuron, (kind, languages) in kinds(layer).items():
            cost = damage[layer * WIDTH + neuron]
            for language in LANGUAGES:
                if kind == "null":
                    assert cost[language] == 0
                elif language in languages:
                    assert cost[language] > 0.01, (kind, language)
                else:
                    assert abs(cost[language]) < 0.001, (kind, language)


def test_exact_ablation_of_the_background_costs_next_to_nothing(damage):
    background = [cost for flat, cost in damage.items() if flat not in ALL]
    assert max(abs(nats) for cost in background for nats in cost.values()) < 0.002


def test_neurons_fire_where_their_kind_says():
    p = planted_stats().probabilities()
    limit = percentile(p, 0.95)
    for layer in range(DEPTH):
        for neuron, (kind, languages) in kinds(layer).items():
            for row, language in zip(p[:, layer * WIDTH + neuron].tolist(), LANGUAGES, strict=True):
                if language not in languages:
                    assert row < 0.01
                elif kind == "rare":
                    assert 0.01 < row < limit, "LAPE cannot see it, by its own filter"
                elif kind == "everywhere":
                    assert row == 1
                else:
                    assert limit < 0.8 < row < 1


def test_the_background_fires_in_every_language_for_the_most_part():
    p = planted_stats().probabilities()
    background = torch.ones(DEPTH * WIDTH, dtype=torch.bool)
    background[list(ALL)] = False
    assert float((p[:, background] > 0).all(0).double().mean()) > 0.6
    assert float(p[:, background].max()) < 0.9


# What each selection method finds


@dataclass(frozen=True)
class Row:
    """One way of choosing: of every language, all neurons of the kinds in `finds` and none of those in `misses`."""

    method: str
    options: dict[str, Any]
    finds: set[str]
    misses: set[str]
    background: bool = False
    """Whether neurons that nobody planted may come out."""
    why: str = ""


EXPECTED = [
    Row(
        "lape",
        {},
        {"own", "null", "shared"},
        {"rare", "everywhere"},
        why="how often, not what for; rare is no candidate",
    ),
    Row("lape", {"per_language": 8}, {"own", "null", "shared"}, {"rare", "everywhere"}),
    Row("lave", {}, {"own", "null", "shared"}, {"rare", "everywhere"}),
    Row(
        "alignment",
        {},
        {"own", "null"},
        {"rare", "everywhere", "shared"},
        why="rare ones are kept instead of shared ones, and then belong to no language",
    ),
    Row("alignment", {"filter": 0.95}, {"own", "null", "shared"}, {"rare", "everywhere"}),
    Row("alignment", {"per_language": 6}, {"own", "null"}, {"rare", "everywhere", "shared"}),
    Row(
        "lap", {"per_language": 4}, {"everywhere"}, {"own", "null", "rare", "shared"}, why="what fires always is first"
    ),
    Row("random", {"per_language": DEPTH * WIDTH}, set(KINDS), set(), True, why="a draw of all is all"),
    Row("difference", {"per_language": 6}, {"own", "null"}, {"rare", "everywhere", "shared"}),
    Row("difference", {"per_language": 8}, {"own", "null", "shared"}, {"rare", "everywhere"}),
    Row("difference", {"per_language": 6, "of": "probability"}, {"own", "null"}, {"rare", "everywhere", "shared"}),
    Row("difference", {"per_language": 8, "of": "probability"}, {"own", "null", "shared"}, {"rare", "everywhere"}),
    *(
        Row(
            "difference",
            {"per_language": 6, "of": of, "against": "largest"},
            {"own", "null"},
            {"rare", "everywhere", "shared"},
        )
        for of in ("activation", "d-prime", "log-odds", "distribution")
    ),
    Row(
        "difference",
        {"per_language": 6, "of": "written", "against": "largest"},
        {"own"},
        {"null"},
        True,
        why="what writes nothing has no length; what is rare can write much",
    ),
    Row(
        "attribution",
        {"by": "own", "per_language": 12},
        {"own", "rare", "shared", "everywhere"},
        {"null"},
        why="all that matters, specific or not",
    ),
    Row("attribution", {"by": "difference", "per_language": 8}, {"own", "rare", "shared"}, {"null", "everywhere"}),
    Row("attribution", {"by": "product", "per_language": 6}, {"own", "rare"}, {"null", "everywhere", "shared"}),
    Row(
        "attribution",
        {"by": "entropy", "per_language": 6, "matters": 0.005},
        {"own", "rare"},
        {"null", "everywhere", "shared"},
    ),
    Row(
        "attribution",
        {"by": "share", "per_language": 6},
        set(),
        {"null", "everywhere", "shared"},
        True,
        why="a neuron that owes next to nothing, but in one language alone, has the largest share",
    ),
    Row("ap", {"per_language": 6, "side": "top"}, {"own", "null"}, {"rare", "everywhere", "shared"}),
    Row("ap", {"per_language": 12}, {"own", "null"}, {"rare", "everywhere"}, True),
    Row("ap", {"per_language": 6, "side": "bottom"}, set(), {"own", "null", "rare", "everywhere", "shared"}, True),
    Row("probability90", {"per_language": 6}, {"own", "null"}, {"rare", "everywhere", "shared"}),
    Row(
        "variation",
        {"per_language": 6},
        {"own", "null"},
        {"rare", "everywhere", "shared"},
        why="it sees what was moved, whether or not that matters or fires",
    ),
]


def stats_for(method: str) -> Any:
    """What a method reads."""
    return moved_stats() if method == "variation" else planted_stats()


@cache
def moved_stats() -> Any:
    """With checkpoints in which one language's own and null neurons were moved, and those of every language in all of them."""
    return record(planted(), planted_tokenizer(), planted_texts(0, 20), tuned={k: _moved(k) for k in LANGUAGES})


def _moved(language: str) -> Any:
    model, generator = copy.deepcopy(planted()), torch.Generator().manual_seed(LANGUAGES.index(language))
    far = neurons_of("own", language) | neurons_of("null", language)
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            step = torch.zeros(WIDTH)
            for some in (far, neurons_of("everywhere")):
                step[[flat % WIDTH for flat in some if flat // WIDTH == number]] = 0.1
            for weight in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, layer.mlp.down_proj.weight.T):
                weight.mul_(1 + step[:, None] * torch.randn(weight.shape, generator=generator))
    return model


@cache
def tuned_stats() -> Any:
    """With checkpoints that were really tuned, on 64 sentences of each language."""
    return record(planted(), planted_tokenizer(), planted_texts(0, 20), tuned={k: _tuned(k) for k in LANGUAGES})


def _tuned(language: str) -> Any:
    model = copy.deepcopy(planted()).requires_grad_(False)
    weights = [one.requires_grad_() for layer in model.model.layers for one in layer.mlp.parameters()]
    optimiser = torch.optim.SGD(weights, lr=0.02)
    texts = list(planted_texts(3, 64)[language].texts)
    for at in range(0, len(texts), 16):
        rows = planted_tokenizer()(texts[at : at + 16], padding=True, return_tensors="pt")
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        model(**{k: rows[k] for k in ("input_ids", "attention_mask")}, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model


def test_every_method_is_in_the_table():
    assert {row.method for row in EXPECTED} == set(DETECTORS)
    assert {row.options["by"] for row in EXPECTED if row.method == "attribution"} == {
        "own",
        "difference",
        "share",
        "product",
        "entropy",
    }


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: "-".join([row.method, *map(str, row.options.values())]))
def test_a_method_finds_and_misses_the_kinds_of_the_table(row):
    assert row.finds | row.misses <= set(KINDS)
    assert not row.finds & row.misses
    found = identify(stats_for(row.method), row.method, reliability=False, **row.options)
    for language in LANGUAGES:
        own = set(found[language])
        for kind in row.finds:
            assert neurons_of(kind, language) <= own, (kind, language)
        for kind in row.misses:
            assert not neurons_of(kind, language) & own, (kind, language)
        if not row.background:
            assert own <= ALL, language


@pytest.mark.parametrize(
    ("method", "options"), [("lape", {}), ("lave", {}), ("alignment", {}), ("lape", {"rate": 0.005})]
)
def test_a_shared_neuron_is_of_its_two_languages_and_an_own_one_of_its_own(method, options):
    found = identify(planted_stats(), method, reliability=False, **options)
    served = {flat: {k for k in LANGUAGES if flat in found[k]} for flat in found.union}
    for layer in range(DEPTH):
        for neuron, (_, languages) in kinds(layer).items():
            assert served.get(layer * WIDTH + neuron, set(languages)) == set(languages)


def test_lape_misses_the_rare_at_any_rate_while_its_filter_stands():
    """A limit of the method, not a fault: a neuron under the 95th percentile everywhere is no candidate, specific or not."""
    found = identify(planted_stats(), rate=0.9, reliability=False)
    assert not neurons_of("rare") & set(found.union)
    low = identify(planted_stats(), rate=0.5, filter=0.001, bar=0.001, reliability=False)
    assert neurons_of("rare") <= set(low.union), "only a filter that low lets it in"


@pytest.mark.parametrize("by", ["own", "difference", "share", "product", "entropy"])
def test_attribution_never_takes_what_is_causally_null_while_lape_keeps_it(by):
    everything = identify(planted_stats(), "attribution", by=by, per_language=DEPTH * WIDTH, reliability=False)
    assert not neurons_of("null") & set(everything.union)
    assert neurons_of("null") <= set(identify(planted_stats(), reliability=False).union)


def test_the_attribution_share_of_own_and_rare_neurons_is_nearly_whole():
    """The score is right; it is the ranking by it alone that lets in neurons that owe next to nothing."""
    stats = planted_stats()
    owed = torch.stack([stats.attribution(language) for language in LANGUAGES]).clamp_min(0)
    for k, language in enumerate(LANGUAGES):
        share = owed[k] / owed.sum(0)
        assert (share[list(neurons_of("own", language) | neurons_of("rare", language))] > 0.98).all()


def test_attribution_is_near_to_exact_ablation_where_it_is_small(damage):
    stats = planted_stats()
    for kind in ("own", "shared", "rare", "everywhere"):
        for language in LANGUAGES:
            for flat in neurons_of(kind, language):
                estimate, exact = float(stats.attribution(language)[flat]), damage[flat][language]
                assert 0.3 < estimate / exact < 1.2, (kind, language, estimate, exact)


def test_the_least_average_precisions_are_quieter_than_in_the_other_languages():
    found, mean = identify(planted_stats(), "ap", per_language=20, side="bottom"), planted_stats().mean
    for language in LANGUAGES:
        others = torch.stack([mean(other) for other in LANGUAGES if other != language])
        assert (mean(language) < others.amin(0))[found[language].flat].all()


def test_variation_of_really_tuned_checkpoints_finds_own_neurons_and_never_those_of_every_language():
    found = identify(tuned_stats(), "variation", per_language=6, reliability=False)
    everywhere = neurons_of("everywhere")
    hits = {k: len(neurons_of("own", k) & set(found[k])) for k in LANGUAGES}
    wrong = sum(len(neurons_of("own", other) & set(found[k])) for k in LANGUAGES for other in LANGUAGES if other != k)
    assert min(hits.values()) >= 2, "chance finds .01 of the four"
    assert wrong == 0
    assert not everywhere & set(found.union)


def test_random_finds_about_chance():
    draws, size = 60, 300
    hits = sum(
        len(ALL & set(one))
        for seed in range(draws)
        for one in identify(planted_stats(), "random", per_language=size, seed=seed, reliability=False).sets.values()
    )
    low, high = binom.interval(0.9999, draws * size * len(LANGUAGES), len(ALL) / (DEPTH * WIDTH))
    assert low < hits < high


# What switching them off does


@pytest.fixture(scope="module")
def table() -> Any:
    neurons = identify(planted_stats(), reliability=False)
    return perplexity(
        planted(), planted_tokenizer(), neurons, planted_texts(1, 40), draws=3, resamples=100, row_tokens=64
    )


def test_switching_a_language_off_hurts_it_more_than_any_matched_or_random_control(table):
    for row in table.filter(table["off"] == table["language"]).iter_rows(named=True):
        assert row["low"] > row["matched_max"] > -0.01
        assert row["low"] > row["random_max"]
        assert row["delta_token"] > 5 * row["matched_max"]


def test_it_hurts_the_language_it_shares_neurons_with_less_and_the_others_hardly(table):
    delta = {(row["off"], row["language"]): row["delta_token"] for row in table.iter_rows(named=True)}
    partner = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
    for off in LANGUAGES:
        assert delta[off, off] > 5 * delta[off, partner[off]]
        for other in set(LANGUAGES) - {off, partner[off]}:
            assert delta[off, partner[off]] > 20 * abs(delta[off, other])


def test_the_causally_null_alone_change_no_loss_at_all():
    neurons = identify(planted_stats(), reliability=False)
    nulls = {k: found.flat[[f in neurons_of("null") for f in found]] for k, found in neurons.items()}
    sets = {k: type(found)(found.space, nulls[k]) for k, found in neurons.items()}
    alone = type(neurons)(neurons.space, sets)
    result = perplexity(planted(), planted_tokenizer(), alone, planted_texts(1, 20), draws=0, resamples=10)
    assert result["neurons"].to_list() == [DEPTH] * len(result)
    assert result["delta_token"].abs().max() == 0
