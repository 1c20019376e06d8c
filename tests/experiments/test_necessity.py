"""Damage of groups against ablation by hand, and estimates of it against what they are defined to be."""

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
from lape.data.windows import batch, batches
from lape.detect.identify import identify
from lape.errors import MismatchError, OptionError, TextError
from lape.experiments.necessity.estimates import Estimator, _documents
from lape.experiments.necessity.groups import own_groups, sample
from lape.experiments.necessity.run import necessity
from lape.model.find import find
from lape.model.loss import find_head
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import hooks_on, model_of, rewritten, some_texts, tokenizer_of
from support.made import made_stats
from support.tiny import LAYERS, tiny

LAW = settings(deadline=None, max_examples=40)
READ = {"row_tokens": 64, "batch_tokens": 128}
TEXTS = {language: some_texts(12, seed) for seed, language in enumerate(("en", "fr", "zh"))}
OTHER = some_texts(10, 77, words=(4, 9))
SMALL = {
    **READ,
    "groups": 12,
    "own": 4,
    "size": 2,
    "points": 2,
    "layerwise": True,
    "draws": 2,
    "calibration": 3,
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


def estimator(model=None, scored=None, texts=OTHER):
    model = model or model_of("llama")
    options = TextOptions(**READ)
    corpus = prepare("fr", Documents(texts), tokenizer_of(), options, lines=True)
    return Estimator(model, find_head(model), corpus, options, scored(corpus) if scored else None)


def test_damage_is_what_zeroing_by_hand_costs_on_all_text_and_on_its_halves():
    model = model_of("llama")
    base, counts = nats(model)
    even = np.arange(len(OTHER)) % 2 == 0
    for row in found()["ablated"].sample(6, seed=1).iter_rows(named=True):
        change = without(model, row["neurons"]) - base
        for name, half in (("damage", even | True), ("damage_a", even), ("damage_b", ~even)):
            assert row[name] == pytest.approx(change[half].sum() / counts[half].sum(), rel=1e-4, abs=1e-5)
    assert hooks_on(model) == 0


def test_predictors_are_read_from_the_statistics():
    p = stats().probabilities()
    means = [stats().mean(language) for language in ("en", "fr", "zh")]
    for row in found()["ablated"].iter_rows(named=True):
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
        assert row["layer"] == flat[0] // 44


def test_the_first_order_looks_at_half_a_alone():
    even = estimator(scored=lambda corpus: corpus.lines.document[corpus.lines.of_token] % 2 == 0)
    owed, step = even.first(), 5e-3
    _, counts = nats(model_of("llama"))
    for row in found()["ablated"].head(5).iter_rows(named=True):
        assert row["first"] == pytest.approx(float(owed[row["neurons"]].sum()), rel=1e-4, abs=1e-7)
        group = NeuronSet(find(model_of("llama")).space, torch.tensor(row["neurons"]))
        slopes = []
        for factor in (1 - step, 1 + step):
            with edited(model_of("llama"), Scale(group, factor)):
                slopes.append(nats(model_of("llama"))[0][::2].sum())
        assert row["first"] == pytest.approx(
            (slopes[0] - slopes[1]) / (2 * step) / counts[::2].sum(), rel=2e-2, abs=5e-5
        )


def test_where_the_network_is_all_but_linear_every_estimate_is_the_damage():
    model = tiny("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(1e-3)
    space = find(model).space
    ours = estimator(model)
    first = ours.first()
    group = NeuronSet(space, first[:44].topk(5).indices)
    base, counts = nats(model)
    with edited(model, Off(group)):
        damage = (nats(model)[0] - base).sum() / counts.sum()
    bend = float(ours.bend([group], 8, 0)[0])
    for owed in (first, ours.along(2), ours.layerwise(2)):
        assert float(owed[group.flat].sum()) == pytest.approx(damage, rel=0.03)
    assert abs(bend) < 0.03 * damage


def damage_of(model, group):
    base, counts = nats(model)
    with edited(model, Off(group)):
        return (nats(model)[0] - base).sum() / counts.sum()


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_a_groups_own_path_sums_to_its_damage(kind):
    """The integral of the slope from off to on is the difference of the ends."""
    model = model_of(kind)
    group = NeuronSet(find(model).space, torch.arange(3, 3 * 44, 5))
    ours = estimator(model)
    errors = [abs(ours.path(group, points) - damage_of(model, group)) for points in (1, 12)]
    assert errors[1] < 0.03 * abs(damage_of(model, group)) + 2e-3
    assert errors[1] < errors[0]


def test_a_layers_and_all_layers_paths_sum_to_the_damage_of_switching_them_off():
    model = model_of("llama")
    space = find(model).space
    every = NeuronSet(space, torch.arange(len(space)))
    layerwise, along = estimator().layerwise(16), estimator().along(24)
    for layer in range(LAYERS):
        one = every.in_layers([layer])
        assert float(layerwise[one.flat].sum()) == pytest.approx(damage_of(model, one), rel=0.03, abs=0.01)
    assert float(along.sum()) == pytest.approx(damage_of(model, every), rel=0.05, abs=0.02)


@pytest.mark.parametrize("row_tokens", [64, 512])
def test_the_second_term_is_the_spread_of_the_logits_slope_under_the_models_own_expectation(row_tokens):
    """½ Σ over tokens of Var_p(d logits / d scale), p being what the model expects: no tokens are drawn here."""
    model, step = model_of("llama"), 1e-5
    space = find(model).space
    groups = [NeuronSet(space, torch.arange(4, 20)), NeuronSet(space, torch.arange(90, 99))]
    ours = estimator()
    object.__setattr__(ours, "options", TextOptions(row_tokens=row_tokens, batch_tokens=1024))
    measured = ours.bend(groups, 150, 0)
    for group, value in zip(groups, measured, strict=True):
        total, count = 0.0, 0
        for text in OTHER:
            ids = torch.tensor([tokenizer_of()(text)["input_ids"]])
            ends = []
            for factor in (1 + step, 1 - step):
                with torch.no_grad(), edited(model, Scale(group, factor)):
                    ends.append(model(input_ids=ids, use_cache=False).logits[0, :-1])
            slope, p = (ends[0] - ends[1]) / (2 * step), ends[0].softmax(-1)
            total += float(((p * slope**2).sum(-1) - (p * slope).sum(-1) ** 2).sum())
            count += len(p)
        assert float(value) == pytest.approx(total / 2 / count, rel=0.15)


@pytest.mark.parametrize("one_per_row", [True, False])
def test_every_position_belongs_to_its_document(one_per_row):
    options = TextOptions(row_tokens=64, batch_tokens=256, one_per_row=one_per_row)
    corpus = prepare("fr", Documents(OTHER), tokenizer_of(), options)
    for some in batches(corpus, options, packs=True):
        one = batch(corpus, some)
        unit, source = _documents(one), one.source.flatten()
        place = {}
        for number, where in zip(unit.tolist(), source.tolist(), strict=True):
            if where >= 0:
                document = int(np.searchsorted(corpus.starts, where, side="right"))
                assert place.setdefault(number, document) == document
        assert len(set(place.values())) == len(place)


def test_bent_adds_the_second_term_to_the_first():
    frame = found()["ablated"]
    assert bool((frame["second"] >= 0).all())
    assert frame["bent"].to_list() == pytest.approx((frame["first"] + frame["second"]).to_list())
    without_draws = run(draws=0, layerwise=False)["ablated"]
    assert without_draws["bent"].null_count() == without_draws["layerwise"].null_count() == len(without_draws)
    assert without_draws["first"].to_list() == pytest.approx(frame["first"].to_list())


def test_groups_that_span_layers_have_no_second_term():
    with pytest.raises(OptionError, match="one"):
        estimator().bend([NeuronSet(find(model_of("llama")).space, torch.tensor([1, 50]))], 1, 0)


SPACE = NeuronSpace.of([(0, None, 60), (1, None, 40)])


@LAW
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 30))
def test_groups_are_spread_evenly_and_share_no_neuron(seed, size, count):
    generator = torch.Generator().manual_seed(seed)
    energy = torch.rand(len(SPACE), generator=generator, dtype=torch.float64)
    if count > 10 * (6 // size + 4 // size):
        with pytest.raises(OptionError, match="fewer or smaller"):
            sample(SPACE, energy, count, size, generator)
        return
    groups = sample(SPACE, energy, count, size, generator)
    assert len(groups) == count
    assert len({flat for group in groups for flat in group.neurons}) == count * size
    for group in groups:
        stretch = SPACE.stretches[group.stretch]
        part = energy[stretch.start : stretch.stop]
        for flat in group.neurons:
            below = int((part < energy[flat]).sum())
            assert group.decile == 10 * below // stretch.width
    room = min(6 // size, 4 // size)
    if count <= 20 * room:  # no stratum is used up
        per = [sum(1 for g in groups if (g.stretch, g.decile) == (k, d)) for k in range(2) for d in range(10)]
        assert max(per) - min(per) <= 1


def test_own_groups_are_of_the_set_and_at_most_as_many_as_asked_for():
    chosen = NeuronSet(SPACE, torch.tensor([1, 5, 9, 30, 70, 71, 99]))
    groups = own_groups(chosen, 10, 2, torch.Generator().manual_seed(0))
    assert len(groups) == 3  # 4 in one layer, 3 in the other
    assert all(len(g.neurons & chosen) == 2 and len(SPACE.split(g.neurons.flat)) == 1 for g in groups)
    assert len(own_groups(chosen, 2, 1, torch.Generator().manual_seed(0))) == 2


def test_scales_are_fitted_on_other_groups_and_other_text_than_are_judged():
    frame = found()["ablated"].filter(pl.col("among") == "sample")
    order = np.random.default_rng(0).permutation(12)
    x, a, b = (frame[name].to_numpy() for name in ("first", "damage_a", "damage_b"))
    for row in found()["predictions"].filter(pl.col("estimate") == "first").iter_rows(named=True):
        used, unseen = order[: row["passes"]], order[6:]
        scale = (x[used] @ a[used]) / (x[used] @ x[used]) if row["passes"] else 1.0
        y = {"same": a, "unseen": b}[row["text"]][unseen]
        error = ((y - scale * x[unseen]) ** 2).sum()
        assert row["scale"] == pytest.approx(scale)
        assert row["r2"] == pytest.approx(1 - error / ((y - y.mean()) ** 2).sum())
        assert row["groups"] == 6
    assert found()["predictions"]["passes"].unique().sort().to_list() == [0, 3, 6]
    ceiling = found()["predictions"].filter(pl.col("estimate") == "damage_a").row(0, named=True)
    assert (ceiling["text"], ceiling["passes"]) == ("unseen", 0)
    assert ceiling["correlation"] == pytest.approx(np.corrcoef(a[order[6:]], b[order[6:]])[0, 1])


def test_correlations_are_with_the_half_that_no_estimate_has_seen():
    frame = found()["ablated"].filter(pl.col("among") == "sample")
    for row in found()["correlations"].filter(pl.col("among") == "sample").iter_rows(named=True):
        expected = np.corrcoef(frame[row["predictor"]].rank(), frame["damage_b"].rank())[0, 1]
        assert row["rho"] == pytest.approx(expected)
        assert -1 <= row["low"] <= row["high"] <= 1


def test_what_was_measured_is_found_again(tmp_path, monkeypatch):
    first = run(folder=tmp_path)
    monkeypatch.setattr("lape.measure.ablation.line_loss", lambda *_a, **_k: pytest.fail("measured again"))
    assert run(folder=tmp_path)["ablated"].equals(first["ablated"])
    assert first["ablated"].equals(found()["ablated"])


def test_only_the_languages_asked_for_are_run():
    texts = {"fr": Documents(OTHER), "zh": Documents(some_texts(10, 5, words=(4, 9)))}
    assert run(texts=texts)["ablated"]["language"].unique().to_list() == ["fr"]
    assert run(texts=texts, languages=("zh",))["ablated"]["language"].unique().to_list() == ["zh"]


def test_statistics_without_attribution_only_lack_it():
    plain = made_stats(0, space=find(model_of("llama")).space, sums=True, of=None)
    result = necessity(model_of("llama"), tokenizer_of(), neurons(), plain, {"fr": Documents(OTHER)}, **SMALL)
    assert "recorded" not in result["correlations"]["predictor"].to_list()
    assert "first" in result["correlations"]["predictor"].to_list()


def test_what_it_cannot_do_is_refused():
    with pytest.raises(TextError, match="no text for zh"):
        run(languages=("fr", "zh"))
    with pytest.raises(TextError, match="halved"):
        run(texts={"fr": Documents(["\n".join(OTHER[:3])])})
    with pytest.raises(MismatchError, match="recorded"):
        run(texts={"fr": Documents(TEXTS["fr"])})
    with pytest.raises(MismatchError, match="statistics"):
        necessity(model_of("llama"), tokenizer_of(), neurons(), made_stats(0), {"fr": Documents(OTHER)}, **SMALL)
    with pytest.raises(OptionError, match="groups"):
        run(groups=2)
