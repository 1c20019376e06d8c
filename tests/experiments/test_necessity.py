"""Damage of sets against ablation by hand, estimates of it against what they are defined to be, and how they are judged."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lape import Off, Scale, edited, record
from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.errors import MismatchError, OptionError, TextError
from lape.experiments.necessity.estimates import Estimator, Expansion
from lape.experiments.necessity.groups import own_subsets, sample, split
from lape.experiments.necessity.predictions import predictions
from lape.experiments.necessity.run import NecessityOptions, necessity
from lape.measure.correlation import determined, linked
from lape.model.find import find
from lape.model.loss import find_head
from lape.options import keywords_of
from lape.study.claims import judge
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import hooks_on, model_of, rewritten, some_texts, tokenizer_of
from support.failing.necessity import CLAIMS, planted_readings, tables
from support.made import made_stats
from support.tiny import tiny

necessity = keywords_of(NecessityOptions)(necessity)

LAW = settings(deadline=None, max_examples=40)
READ = {"row_tokens": 64, "batch_tokens": 128}
TEXTS = {language: some_texts(12, seed) for seed, language in enumerate(("en", "fr", "zh"))}
OTHER = some_texts(10, 77, words=(4, 9))
SMALL = {
    **READ,
    "groups": 10,
    "sizes": (3,),
    "own": 8,
    "own_sizes": (2, 5, 99),
    "points": 2,
    "draws": 2,
    "calibration": 4,
    "bounds": 1,
    "singles": 2,
    "resamples": 50,
}


@cache
def stats():
    texts = {language: Documents(one) for language, one in TEXTS.items()}
    return record(model_of("llama"), tokenizer_of(), texts, attribution=10**6, **READ)


@cache
def neurons():
    return identify(stats(), reliability=False, per_language=12, filter=0.3)


def run(**changes):
    texts = changes.pop("texts", {"fr": Documents(OTHER)})
    return necessity(model_of("llama"), tokenizer_of(), neurons(), stats(), texts, **{**SMALL, **changes})


@cache
def found():
    return run()


def nats(model, texts=OTHER):
    """(documents,) summed losses and how many tokens were scored, document by document."""
    losses, counts = [], []
    for text in texts:
        ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0]
        losses.append(float(functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")))
        counts.append(ids.shape[1] - 1)
    return np.array(losses), np.array(counts)


def without(model, flat, width=44):
    """Losses with some neurons zeroed, by formulas written by hand."""

    def zero(layer, a):
        for one in flat:
            if one // width == layer:
                a[..., one % width] = 0
        return a

    with rewritten(model, "llama", zero):
        return nats(model)[0]


def estimator(model=None, texts=OTHER, **options):
    model = model or model_of("llama")
    read = TextOptions(**{**READ, **options})
    corpus = prepare("fr", Documents(texts), tokenizer_of(), read, lines=True)
    return Estimator(model, find_head(model), corpus, read)


def some_sets(model, *flats):
    return [NeuronSet(find(model).space, torch.tensor(flat)) for flat in flats]


OVER_LAYERS = [list(range(3, 3 * 44, 5)), [1, 50, 99, 131], [7]]


# What was measured and read


def test_damage_is_what_zeroing_by_hand_costs_on_all_text_and_on_its_halves():
    model = model_of("llama")
    base, counts = nats(model)
    even = np.arange(len(OTHER)) % 2 == 0
    for row in found()["damages"].sample(4, seed=1).iter_rows(named=True):
        change = without(model, row["neurons"]) - base
        for name, half in (("damage", even | True), ("damage_a", even), ("damage_b", ~even)):
            assert row[name] == pytest.approx(change[half].sum() / counts[half].sum(), rel=1e-4, abs=1e-5)
    assert hooks_on(model) == 0


def test_predictors_are_read_from_the_statistics():
    p = stats().probabilities()
    means = [stats().mean(language) for language in ("en", "fr", "zh")]
    for row in found()["damages"].iter_rows(named=True):
        flat = row["neurons"]
        assert row["probability"] == pytest.approx(float(p[1, flat].mean()))
        gaps = means[1] - (means[0] + means[2]) / 2
        assert row["difference"] == pytest.approx(float(gaps[flat].sum()))
        assert row["recorded"] == pytest.approx(float(stats().attribution("fr")[flat].sum()))
        entropies = []
        for j in flat:
            share = [float(x / p[:, j].sum()) if p[:, j].sum() > 0 else 1 / 3 for x in p[:, j]]
            entropies.append(-sum(s * np.log(s) for s in share if s > 0))
        assert row["entropy"] == pytest.approx(-np.mean(entropies), abs=1e-9)
        assert row["chosen"] == len(set(flat) & set(neurons()["fr"]))
        assert row["layers"] == len({j // 44 for j in flat})
        assert row["size"] == len(flat)


def test_correlations_are_with_the_damage_of_sets_of_one_kind_and_size():
    for row in found()["damage_correlations"].iter_rows(named=True):
        frame = found()["damages"].filter(among=row["among"], size=row["size"])
        expected = np.corrcoef(frame[row["predictor"]].rank(), frame["damage"].rank())[0, 1]
        assert row["rho"] == pytest.approx(expected)
        assert row["groups"] == len(frame)


# Estimates


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "phi3", "gpt2"])
def test_the_first_order_is_the_derivative_along_a_sets_path_over_layers_document_by_document(kind):
    model, step = model_of(kind), 1e-3
    sets = some_sets(model, *OVER_LAYERS)
    first = estimator(model).expand(sets, 0, 0).first
    assert first.shape == (len(sets), len(OTHER))
    for one, row in zip(sets, first, strict=True):
        ends = []
        for factor in (1 - step, 1 + step):
            with edited(model, Scale(one, factor)):
                ends.append(nats(model)[0])
        assert row == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=5e-3, abs=2e-3)


def test_the_second_term_is_a_brute_force_gauss_newton_product():
    """½ Σ over a document's tokens of Var_p(d logits / d scale), p being what the model expects: no tokens are drawn here, and no gradient is taken."""
    model, step = model_of("llama"), 1e-5
    sets = some_sets(model, *OVER_LAYERS)
    measured = estimator(model, batch_tokens=1024).expand(sets, 150, 0).second
    for one, row in zip(sets, measured, strict=True):
        expected = []
        for text in OTHER:
            ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
            ends = []
            for factor in (1 + step, 1 - step):
                with torch.no_grad(), edited(model, Scale(one, factor)):
                    ends.append(model(input_ids=ids, use_cache=False).logits[0, :-1])
            slope, p = (ends[0] - ends[1]) / (2 * step), ends[0].softmax(-1)
            expected.append(float(((p * slope**2).sum(-1) - (p * slope).sum(-1) ** 2).sum()) / 2)
        assert row.sum() == pytest.approx(sum(expected), rel=0.15)
        assert row == pytest.approx(np.array(expected), rel=0.6)


def test_where_the_network_is_all_but_linear_the_first_order_is_the_damage():
    model = tiny("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1e-3)
    sets = some_sets(model, *OVER_LAYERS)
    ours = estimator(model).expand(sets, 8, 0)
    base = nats(model)[0]
    for one, first, second in zip(sets, ours.first, ours.second, strict=True):
        with edited(model, Off(one)):
            damage = nats(model)[0] - base
        assert first == pytest.approx(damage, rel=0.05, abs=2e-5)
        assert np.abs(second).max() < 0.05 * np.abs(damage).max()


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_a_sets_own_path_becomes_its_damage_in_every_document_as_points_grow(kind):
    """The integral of the slope from off to on is the difference of the ends."""
    model = model_of(kind)
    (one,) = some_sets(model, OVER_LAYERS[0])
    ours, base = estimator(model), nats(model)[0]
    with edited(model, Off(one)):
        damage = nats(model)[0] - base
    errors = [np.abs(ours.path(one, points) - damage).max() for points in (1, 3, 12)]
    assert errors[2] < 0.01 * np.abs(damage).max() + 2e-3
    assert errors[2] < errors[1] < errors[0]


def test_the_slope_along_another_sets_path_is_a_derivative_there():
    model, step = model_of("llama"), 1e-3
    sets = some_sets(model, [3, 8, 50, 51], [7, 48], [2, 3, 8, 50, 90, 91])
    slopes = estimator(model).slopes(sets, 2)
    assert slopes.shape == (2, 3, len(OTHER))
    for one, row in zip(sets, slopes[0], strict=True):
        ends = []
        for factor in (1 - step, 1 + step):  # of the set itself, where it is in the other on top of that one's half
            inside, outside = one & sets[-1], one - sets[-1]
            with edited(model, [Scale(sets[-1], 0.5), Scale(inside, 1 + 2 * (factor - 1)), Scale(outside, factor)]):
                ends.append(nats(model)[0])
        assert row == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-2, abs=5e-3)


def test_along_its_own_path_a_whole_sets_estimate_becomes_its_damage_as_points_grow():
    model = model_of("llama")
    sets, base = some_sets(model, [3, 8], OVER_LAYERS[0]), nats(model)[0]
    with edited(model, Off(sets[-1])):
        damage = nats(model)[0] - base
    ours, errors = estimator(model), []
    found = ours.expand(sets, 1, 0)
    for points in (1, 3, 9):
        along = found.along(ours.slopes(sets, points), np.ones(len(OTHER), bool))
        errors.append(np.abs(along[-1] - damage).max())
    assert errors[2] < 0.03 * np.abs(damage).max() + 2e-3
    assert errors[2] < errors[1] < errors[0]


def planted_path(loss, first, second, sets, points=40):
    """What is known of sets of neurons, the whole last, of a loss of how far each neuron is turned down: at 0, and slopes along the whole set's path."""
    slopes = []
    for tau in np.arange(1, points + 1) / points:
        steps = np.array([(loss(tau + 1e-5 * one) - loss(tau - 1e-5 * one)) / 2e-5 for one in np.eye(sets.shape[1])])
        slopes.append(sets @ steps)
    damage = np.array([loss(one) for one in sets])
    along = Expansion(first[:, None], second[:, None]).along(np.array(slopes)[:, :, None], np.ones(1, bool))
    return along[:, 0], damage


def test_what_is_quadratic_is_exact_along_the_path():
    random = np.random.default_rng(0)
    root, b = random.normal(size=(9, 12)), random.normal(size=12) + 2
    hessian, sets = root.T @ root, np.array([*(random.random((6, 12)) < 0.5), np.ones(12)], float)
    second = np.einsum("si,ij,sj->s", sets, hessian, sets) / 2
    along, damage = planted_path(
        lambda x: x @ b + (x * np.ones(12)) @ hessian @ (x * np.ones(12)) / 2, sets @ b, second, sets
    )
    assert along == pytest.approx(damage, rel=1e-5)


def test_stages_of_a_path_are_counted_to_the_sets_that_pass_them():
    """A loss that rises steeply in two stages, of other neurons each, is 0 to the second order, and yet known of every subset."""
    random = np.random.default_rng(1)
    early, late = np.zeros(12), np.zeros(12)
    early[:6], late[4:] = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(8))

    def stage(reached, at):
        return 1 / (1 + np.exp(-20 * (reached - at)))

    def loss(x):
        x = x * np.ones(12)
        return stage(x @ early, 0.3) + 3 * stage(x @ late, 0.7)

    sets = np.array([*(random.random((30, 12)) < 0.6), np.ones(12)], float)
    along, damage = planted_path(loss, np.zeros(31), np.zeros(31), sets)
    assert len(set(damage.round())) >= 3
    assert determined(linked(along, damage)(along), damage) > 0.9
    assert determined(np.zeros(31), damage) < 0


def test_the_trapezoid_is_the_mean_of_the_slopes_at_both_ends():
    model, step = model_of("llama"), 1e-3
    (one,) = some_sets(model, OVER_LAYERS[0])
    slopes = []
    for at in (1.0, 2 * step):
        ends = []
        for factor in (at - step, at + step):
            with edited(model, Scale(one, factor)):
                ends.append(nats(model)[0])
        slopes.append((ends[0] - ends[1]) / (2 * step))
    assert estimator(model).trapezoid(one) == pytest.approx(sum(slopes) / 2, rel=2e-2, abs=2e-2)


def test_a_set_is_estimated_alike_alone_and_among_others_packed_or_not():
    model = model_of("llama")
    sets = some_sets(model, *OVER_LAYERS)
    every = estimator(model).expand(sets, 0, 0).first
    alone = estimator(model, one_per_row=True, batch_tokens=64).expand(sets[1:2], 0, 0).first
    assert alone[0] == pytest.approx(every[1], rel=1e-4, abs=1e-5)


def test_passes_do_not_grow_with_sets_nor_forward_ones_with_draws():
    model, ran = tiny("llama"), []
    ours = estimator(model)
    handle = model.model.register_forward_hook(lambda *_: ran.append(1))
    counts = []
    sets = some_sets(model, *([k, 44 + k] for k in range(40)))
    for number, draws in ((1, 0), (40, 0), (40, 3)):
        ran.clear()
        ours.expand(sets[:number], draws, 0)
        counts.append(len(ran))
    handle.remove()
    assert counts[0] == counts[1] == counts[2] > 0


# Sets

SPACE = NeuronSpace.of([(0, None, 60), (1, None, 40)])


@LAW
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 30))
def test_random_groups_are_of_all_layers_and_share_no_neuron(seed, size, count):
    generator = torch.Generator().manual_seed(seed)
    if count * size > len(SPACE):
        with pytest.raises(OptionError, match="fewer or smaller"):
            sample(SPACE, count, size, generator)
        return
    groups = sample(SPACE, count, size, generator)
    assert [len(group.neurons) for group in groups] == [size] * count
    assert len({flat for group in groups for flat in group.neurons}) == count * size


def test_random_groups_take_every_neuron_as_often():
    counts = np.zeros(len(SPACE))
    for seed in range(400):
        for group in sample(SPACE, 2, 5, torch.Generator().manual_seed(seed)):
            counts[group.neurons.flat] += 1
    assert np.abs(counts / 400 - 0.1).max() < 0.06


@LAW
@given(st.integers(0, 10**6), st.integers(0, 20), st.sets(st.integers(1, 12), min_size=1))
def test_own_subsets_are_different_and_of_each_size_that_fits(seed, count, sizes):
    chosen = NeuronSet(SPACE, torch.tensor([1, 5, 9, 30, 70, 71, 99]))
    groups = own_subsets(chosen, count, sorted(sizes), torch.Generator().manual_seed(seed))
    assert len({tuple(group.neurons) for group in groups}) == len(groups) <= count
    assert all(set(group.neurons) < set(chosen) and len(group.neurons) in sizes for group in groups)
    fitting = [size for size in sizes if size < 7]
    if fitting and count:
        assert len(groups) >= min(count, 4)


@LAW
@given(st.integers(0, 10**6), st.integers(0, 40))
def test_links_are_fitted_on_as_many_of_each_kind_and_size(seed, known):
    generator = torch.Generator().manual_seed(seed)
    groups = sample(SPACE, 9, 3, generator) + own_subsets(
        NeuronSet(SPACE, torch.arange(20)), 10, (2, 5), torch.Generator().manual_seed(0)
    )
    fitted = split(groups, known, generator)
    assert sum(fitted) == min(known, len(groups))
    for alike in (lambda group: group.among, lambda group: group.stratum if group.among == "own" else None):
        kinds = {alike(group) for group in groups} - {None}
        taken = {one: sum(f for f, g in zip(fitted, groups, strict=True) if alike(g) == one) for one in kinds}
        left = {one: sum(not f for f, g in zip(fitted, groups, strict=True) if alike(g) == one) for one in kinds}
        full = max(taken.values())
        assert full - min([n for one, n in taken.items() if left[one]], default=full) <= 1


# Predictions


def test_predictions_are_their_definitions():
    frame = found()["damages"]
    assert int(frame["fitted"].sum()) == 4
    bent = frame["first"] + frame["second"]
    assert frame["bent"].to_list() == pytest.approx(bent.to_list())
    known = frame.filter("fitted", pl.col("among") == "own")
    assert len(known) == 2
    for text, x, seen, y in (("same", "bent", "damage", "damage"), ("unseen", "bent_a", "damage_a", "damage_b")):
        for passes in (0, 2):
            row = found()["damage_predictions"].row(
                by_predicate=(pl.col("estimate") == "bent")
                & (pl.col("text") == text)
                & (pl.col("passes") == passes)
                & (pl.col("among") == "own")
                & (pl.col("size") == 0),
                named=True,
            )
            judged = frame.filter(~pl.col("fitted"), pl.col("among") == "own")
            predicted, measured = judged[x].to_numpy(), judged[y].to_numpy()
            if passes:
                predicted = linked(known[x].to_numpy(), known[seen].to_numpy())(predicted)
            spread = ((measured - measured.mean()) ** 2).sum()
            assert row["r2"] == pytest.approx(1 - ((measured - predicted) ** 2).sum() / spread)
            assert row["groups"] == len(judged)
            assert row["r2_low"] is None, "fewer than 20 sets have no interval"
            if text == "unseen":
                first = judged["damage_a"].to_numpy()
                assert row["ceiling"] == pytest.approx(1 - ((measured - first) ** 2).sum() / spread)
                r = np.corrcoef(first, measured)[0, 1]
                assert row["reliability"] == pytest.approx(2 * r / (1 + r))
                if row["ceiling"] > 0:
                    assert row["share"] == pytest.approx(row["r2"] / row["ceiling"])


def test_estimates_are_mended_by_what_the_largest_neurons_are_measured_to_do():
    model, own = model_of("llama"), list(neurons()["fr"])
    base, counts = nats(model)
    ours = estimator().expand(some_sets(model, *([j] for j in own)), SMALL["draws"], 0)
    bent = ours.first + ours.second
    largest = np.argsort(-bent[:, ::2].sum(1))[:2]
    errors = {own[k]: (without(model, [own[k]]) - base - bent[k]).sum() / counts.sum() for k in largest}
    for row in found()["damages"].iter_rows(named=True):
        more = sum(error for j, error in errors.items() if j in row["neurons"])
        assert row["mended"] == pytest.approx(row["along"] + more, rel=1e-3, abs=1e-5)


def test_paths_are_followed_for_as_many_sets_as_asked_for():
    frame = found()["damages"]
    assert frame.filter(pl.col("path").is_not_null()).group_by("among").len()["len"].to_list() == [1, 1]
    row = frame.filter(pl.col("path").is_not_null()).row(0, named=True)
    assert row["path"] == pytest.approx(row["damage"], rel=0.1, abs=2e-3)
    assert run(bounds=0)["damages"]["trapezoid"].null_count() == len(frame)


def test_without_draws_there_is_no_bend():
    frame = run(draws=0, bounds=0)["damages"]
    assert frame["second"].null_count() == frame["bent"].null_count() == len(frame)
    assert frame["first"].to_list() == pytest.approx(found()["damages"]["first"].to_list())


@pytest.mark.parametrize("name", CLAIMS)
def test_each_claim_holds_where_it_is_so(name):
    """Where it is not: tests/contracts/test_claims.py."""
    assert judge(CLAIMS[name], tables("explained"), {}, ["fr"]).verdict == "holds"


def test_what_is_only_so_on_the_text_itself_is_no_share_of_what_other_text_allows():
    found = predictions(planted_readings("same only"), 100, 0)
    rows = found.filter(estimate="bent", passes=5, size=0)
    assert rows.filter(text="same")["r2"].min() > 0.9
    assert rows.filter(text="unseen")["r2"].max() < 0.5


# How it is run


def test_what_was_measured_is_found_again(tmp_path, monkeypatch):
    first = run(folder=tmp_path, bounds=0)
    monkeypatch.setattr("lape.measure.ablation.line_loss", lambda *_a, **_k: pytest.fail("measured again"))
    monkeypatch.setattr("lape.experiments.necessity.estimates.backward", lambda *_a, **_k: pytest.fail("run again"))
    assert run(folder=tmp_path, bounds=0)["damages"].equals(first["damages"])


def test_only_the_languages_asked_for_are_run():
    texts = {"fr": Documents(OTHER), "zh": Documents(some_texts(10, 5, words=(4, 9)))}
    small = {"texts": texts, "bounds": 0, "draws": 1}
    assert run(**small)["damages"]["language"].unique().to_list() == ["fr"]
    every = run(**small, languages=("zh", "fr"))
    assert [every[name]["language"].unique(maintain_order=True).to_list() for name in every] == [["zh", "fr"]] * 3


def test_statistics_without_attribution_only_lack_it():
    plain = made_stats(0, space=find(model_of("llama")).space, sums=True, of=None)
    small = {**SMALL, "bounds": 0}
    result = necessity(model_of("llama"), tokenizer_of(), neurons(), plain, {"fr": Documents(OTHER)}, **small)
    assert "recorded" not in result["damage_correlations"]["predictor"].to_list()
    assert "recorded" not in result["damage_predictions"]["estimate"].to_list()
    assert "bent" in result["damage_predictions"]["estimate"].to_list()


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TextError, match="no text for zh"):
        run(languages=("fr", "zh"))
    with pytest.raises(TextError, match=r"one document.*halved"):
        run(texts={"fr": Documents(["\n".join(OTHER[:3])])})
    with pytest.raises(MismatchError, match="recorded"):
        run(texts={"fr": Documents(TEXTS["fr"])})
    with pytest.raises(MismatchError, match="statistics"):
        necessity(model_of("llama"), tokenizer_of(), neurons(), made_stats(0), {"fr": Documents(OTHER)}, **SMALL)
    with pytest.raises(OptionError, match="groups is 3"):
        run(groups=3)
    with pytest.raises(OptionError, match="sizes names no number"):
        run(sizes=())
