"""Mean activations of single texts and histograms, against every token's activation written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.texts import Documents
from lape.detect.ap import average_precision
from lape.errors import FileError, MismatchError, OptionError
from lape.recording.observers.texts import texts_of
from lape.recording.record import record
from lape.values.histogram import EDGES, ZERO
from lape.values.stats import ActivationStats, merge
from support.brute import activations, model_of, rounding_of, row_of, some_texts, tokenizer_of
from support.made import made_corpus

KINDS = ["llama", "opt", "lfm2", "mpt"]
BOTH = {"per_text": True, "histogram": True}


def recorded(texts, kind="llama", **options):
    return record(model_of(kind), tokenizer_of(), {"en": Documents(texts)}, **{"row_tokens": 64, **options})["en"]


def by_hand(texts, kind="llama"):
    """(tokens, neurons) activations of the counted tokens of each document read alone."""
    rows = [row_of(text, tokenizer_of(), bos=True) for text in texts]
    return [activations(model_of(kind), kind, ids)[counted] for ids, counted in rows]


def assert_means(found, expected):
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), torch.stack(expected).double(), rtol=2e-3, atol=1e-5)


# --- which tokens are a text ---


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=70), st.integers(1, 80))
def test_texts_are_documents_or_chunks_of_about_64_tokens(lengths, most):
    corpus = made_corpus(lengths)
    expected = []
    for start, length in zip(corpus.starts[:-1].tolist(), lengths, strict=True):
        parts = max(1, round(length / 64)) if len(lengths) < 64 else 1
        expected += [(start + p * length // parts, start + (p + 1) * length // parts) for p in range(parts)]
    found = list(zip(*(x.tolist() for x in texts_of(corpus, 10**6)), strict=True))
    assert found == expected
    assert [token for start, stop in found for token in range(start, stop)] == list(range(sum(lengths)))
    if len(lengths) < 64:
        assert all(stop - start <= 97 for start, stop in found)
    fewer = list(zip(*(x.tolist() for x in texts_of(corpus, most)), strict=True))
    assert len(fewer) == min(most, len(found))
    assert fewer == [found[k * len(found) // len(fewer)] for k in range(len(fewer))]


@pytest.mark.parametrize("kind", KINDS)
def test_with_64_documents_a_text_is_a_document(kind):
    texts = some_texts(66, words=(1, 5))
    assert_means(recorded(texts, kind, per_text=True).extra("texts"), [a.mean(0) for a in by_hand(texts, kind)])


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("row_tokens", [32, 600])
def test_with_fewer_documents_a_text_is_a_chunk_even_across_rows(kind, row_tokens):
    texts = [" ".join(some_texts(40, seed)) for seed in (0, 1)] + ["le chat"]
    expected = []
    for text in texts:
        ids, _ = row_of(text, tokenizer_of(), bos=False)
        parts = [ids[at : at + row_tokens - 1] for at in range(0, len(ids), row_tokens - 1)]
        a = torch.cat([activations(model_of(kind), kind, [1, *part])[1:] for part in parts])
        n = max(1, round(len(ids) / 64))
        expected += [a[k * len(ids) // n : (k + 1) * len(ids) // n].mean(0) for k in range(n)]
    assert len(expected) > 8
    found = recorded(texts, kind, per_text=True, row_tokens=row_tokens, batch_tokens=row_tokens)
    assert_means(found.extra("texts"), expected)


def test_at_most_so_many_texts_are_kept_evenly_spread():
    texts = some_texts(70, words=(1, 4))
    every = recorded(texts, per_text=True).extra("texts")
    some = recorded(texts, per_text=True, most_texts=7).extra("texts")
    assert torch.equal(some, every[::10])


def test_special_tokens_spelled_out_enter_no_mean_and_a_text_of_nothing_else_is_none():
    texts = ["the cat</s> sat <pad>on<s> the mat", "</s>", *some_texts(63, words=(1, 3))]
    expected = [a.mean(0) for a in by_hand(texts) if len(a)]
    assert len(expected) == 64
    assert_means(recorded(texts, per_text=True).extra("texts"), expected)


# --- histograms ---


@pytest.mark.parametrize("kind", KINDS)
def test_above_every_edge_lie_as_many_tokens_as_there_are(kind):
    texts = some_texts(30)
    a = torch.cat(by_hand(texts, kind))
    stats = recorded(texts, kind, histogram=True)
    histogram = stats.extra("histogram")
    assert (histogram.dtype, histogram.shape) == (torch.int64, (a.shape[1], 70))
    slack = max(1e-6, 10 * rounding_of(kind)) * float(a.abs().max())
    for b, edge in enumerate(EDGES.tolist()):
        above = histogram[:, b + 1 :].sum(1)
        assert bool((above <= (a > edge - slack).sum(0)).all())
        assert bool((above >= (a > edge + slack).sum(0)).all())
    assert torch.equal(histogram[:, ZERO + 1 :].sum(1), stats.fires.sum(0))
    assert torch.equal(histogram.sum(1), stats.tokens.sum().expand(a.shape[1]))


def test_a_histogram_counts_each_token_in_the_bin_it_lies_in():
    texts = some_texts(20)
    a = torch.cat(by_hand(texts)).float()
    expected = torch.zeros(a.shape[1], 70, dtype=torch.int64)
    for j, column in enumerate(np.searchsorted(EDGES.numpy(), a.T.numpy(), side="left")):
        for b in column:
            expected[j, b] += 1
    assert torch.equal(recorded(texts, histogram=True).extra("histogram"), expected)


# --- options, merging, files ---


def test_neither_is_recorded_unasked_and_the_error_names_the_option():
    stats = recorded(["the cat"])
    assert {"texts", "histogram"}.isdisjoint(stats.tensors)
    with pytest.raises(OptionError, match="lape record --per-text"):
        stats.extra("texts")
    with pytest.raises(OptionError, match="lape record --histogram"):
        stats.extra("histogram")
    with pytest.raises(OptionError, match="most_texts is 0"):
        recorded(["the cat"], per_text=True, most_texts=0)


@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_what_is_counted_otherwise_stays_the_same(kind):
    texts = some_texts(20)
    plain, more = recorded(texts, kind), recorded(texts, kind, **BOTH)
    assert all(torch.equal(plain.tensors[name], more.tensors[name]) for name in plain.tensors)


def parts_of(texts, cut, **options):
    return [
        record(model_of("opt"), tokenizer_of(), {"en": Documents(some)}, **BOTH, **options)
        for some in (texts[:cut], texts[cut:])
    ]


def test_shards_of_64_documents_and_more_merge_to_the_whole():
    texts = some_texts(140, words=(1, 3))
    whole = recorded(texts, "opt", **BOTH)
    merged = merge(parts_of(texts, 70))["en"]
    assert torch.equal(merged.extra("histogram"), whole.extra("histogram"))
    assert torch.equal(merged.extra("texts"), whole.extra("texts"))


def test_shards_in_any_order_give_the_same_average_precision_and_histogram():
    a, b = parts_of(some_texts(40), 25)
    others = recorded(some_texts(30, 3), "opt", **BOTH).extra("texts")
    one, two = a.merge(b)["en"], b.merge(a)["en"]
    assert torch.equal(one.extra("histogram"), two.extra("histogram"))
    precision = [average_precision([merged.extra("texts"), others]) for merged in (one, two)]
    assert torch.equal(*precision)


@pytest.mark.parametrize("name", ["texts", "histogram"])
def test_merging_with_them_and_without_is_refused(name):
    option = {"texts": "per_text"}.get(name, name)
    a = record(model_of("opt"), tokenizer_of(), {"en": Documents(["le chat"])}, **{option: True})
    b = record(model_of("opt"), tokenizer_of(), {"en": Documents(["le chien"])})
    with pytest.raises(MismatchError, match=name):
        a.merge(b)


@pytest.fixture
def texts(tmp_path):
    for language, seed in (("en", 0), ("fr", 1)):
        (tmp_path / f"{language}.txt").write_text("\n".join(some_texts(40, seed)), encoding="utf-8")
    return {language: str(tmp_path / f"{language}.txt") for language in ("en", "fr")}


def run(texts, out, kind, **options):
    every = {"batch_tokens": 32, "row_tokens": 32, "most_texts": 5, "checkpoint_seconds": 0, **BOTH, **options}
    return record(model_of(kind), tokenizer_of(), texts, out=out, **every)


def stopped(texts, out, kind, after):
    seen = []

    def stop(task, *_):
        seen.append(task)
        if seen.count("recording fr") == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(texts, out, kind, progress=stop)


@pytest.mark.parametrize(("kind", "after"), [("llama", 1), ("llama", 4), ("lfm2", 4)])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(texts, tmp_path, kind, after):
    stopped(texts, tmp_path / "run", kind, after)
    stats = run(texts, tmp_path / "run", kind)
    whole = run(texts, None, kind)
    for language in texts:
        assert {"texts", "histogram"} < set(whole[language].tensors)
        assert stats[language].tensors.keys() == whole[language].tensors.keys()
        assert all(torch.equal(stats[language].tensors[n], whole[language].tensors[n]) for n in stats[language].tensors)


@pytest.mark.parametrize("change", [{"histogram": False}, {"per_text": False}, {"most_texts": 4}])
def test_a_stopped_run_does_not_go_on_with_other_options(texts, tmp_path, change):
    stopped(texts, tmp_path / "run", "llama", 2)
    with pytest.raises(FileError, match="stopped, in which options was"):
        run(texts, tmp_path / "run", "llama", **change)


def test_a_file_gives_back_what_was_saved(texts, tmp_path):
    stats = run(texts, None, "llama")
    loaded = ActivationStats.load(stats.save(tmp_path / "a.safetensors"))
    for name in ("texts", "histogram"):
        assert torch.equal(loaded["fr"].extra(name), stats["fr"].extra(name))
