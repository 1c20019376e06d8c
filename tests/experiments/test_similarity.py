"""Similarity of sentences: the vectors and both tables are those of the definition, whatever shares a row with what."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.corpus import TextOptions
from lape.data.parallel import aligned_lines
from lape.data.texts import Documents
from lape.errors import MismatchError, ModelError, OptionError, TextError
from lape.experiments.similarity.run import SimilarityOptions, dominance, pairs, similarity
from lape.experiments.similarity.vectors import sentence_vectors
from lape.measure.bootstrap import Resamples
from lape.model.find import find
from lape.options import keywords_of
from support.brute import KINDS, MLPS, hooks_on, lively, model_of, rounding_of, row_of, some_texts, tokenizer_of
from support.tiny import LAYERS

similarity = keywords_of(SimilarityOptions)(similarity)

SHORT = TextOptions(row_tokens=128, batch_tokens=256)
FLOATS = ("dominance", "mismatched", "difference", "p_at_1", "p_at_1_chance", "norm")


def sentences(count, seed=0):
    """Sentences of one to eight words; one spells out a special token."""
    texts = some_texts(count, seed)
    return [*texts[:-1], texts[-1] + "</s> mat"]


# --- the definition, in loops ---


def block_name(kind, layer):
    parts = MLPS[kind].gate.format(layer).split(".")
    return ".".join(parts[: parts.index(str(layer)) + 1])


def stream(model, kind, ids):
    """(layers, tokens, width) after each block, of one row."""
    seen, handles = [], []
    for layer in range(LAYERS):
        module = model.get_submodule(block_name(kind, layer))
        handles.append(
            module.register_forward_hook(
                lambda _m, _a, out: seen.append(
                    (out if isinstance(out, torch.Tensor) else out[0]).reshape(len(ids), -1)
                )
            )
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(seen)


def vectors_by_hand(kind, texts, bos=True, model=None):
    """(layers, sentences, width), one sentence a forward."""
    result = []
    for text in texts:
        ids, counted = row_of(text, tokenizer_of(bos), bos)
        result.append(stream(model or model_of(kind), kind, ids)[:, counted].mean(1))
    return torch.stack(result, 1)


def cosine(x, y):
    return float(x @ y) / (float(x @ x) ** 0.5 * float(y @ y) ** 0.5)


def in_b(count):
    return [s for s in range(count) if s // 8 in range(1, count, 2)]


def shifted_cosines(vectors, layer, k, c, means):
    """cos(h_k(s) - v_k + v_c, h_c(t)) for all s and t of half B."""
    b = in_b(vectors[k].shape[1])
    return [[cosine(vectors[k][layer, s] - means[k] + means[c], vectors[c][layer, t]) for t in b] for s in b]


def dominance_by_hand(vectors, layer, c):
    """The row of a language, and the difference of each sentence."""
    count = next(iter(vectors.values())).shape[1]
    b = in_b(count)
    a = [s for s in range(count) if s not in b]
    means = {k: sum(h[layer, s] for s in a) / len(a) for k, h in vectors.items()}
    own, wrong, hits = [], [], []
    for k in vectors:
        if k == c:
            continue
        table = shifted_cosines(vectors, layer, k, c, means)
        own.append([table[i][i] for i in range(len(b))])
        wrong.append([sum(x for j, x in enumerate(row) if j != i) / (len(b) - 1) for i, row in enumerate(table)])
        hits.append([all(row[i] > x for j, x in enumerate(row) if j != i) for i, row in enumerate(table)])
    own, wrong, hits = np.array(own), np.array(wrong), np.array(hits)
    row = {
        "dominance": own.mean(),
        "mismatched": wrong.mean(),
        "difference": own.mean() - wrong.mean(),
        "p_at_1": hits.mean(),
        "p_at_1_chance": 1 / len(b),
        "norm": float(means[c].norm()),
    }
    return row, (own - wrong).mean(0)


def pair_by_hand(vectors, layer, a, b):
    half = in_b(vectors[a].shape[1])
    own = [cosine(vectors[a][layer, s], vectors[b][layer, s]) for s in half]
    wrong = [cosine(vectors[a][layer, s], vectors[b][layer, t]) for s in half for t in half if s != t]
    return {"cosine": np.mean(own), "mismatched": np.mean(wrong)}


def assert_by_hand(tables, vectors, close=1e-9):
    vectors = {k: h.double() for k, h in vectors.items()}
    layers = next(iter(vectors.values())).shape[0]
    found, paired = tables
    assert found.select("layer", "language").rows() == list(itertools.product(range(layers), vectors))
    for row in found.iter_rows(named=True):
        expected, _ = dominance_by_hand(vectors, row["layer"], row["language"])
        assert {name: row[name] for name in FLOATS} == pytest.approx(expected, abs=close, rel=close)
    expected_pairs = [(la, *ab) for la in range(layers) for ab in itertools.combinations(vectors, 2)]
    assert paired.select("layer", "a", "b").rows() == expected_pairs
    for row in paired.iter_rows(named=True):
        expected = pair_by_hand(vectors, row["layer"], row["a"], row["b"])
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=close, rel=close)


# --- vectors ---


def assert_vectors(found, kind, texts, bos=True):
    expected = vectors_by_hand(kind, texts, bos)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    gap = (found.double() - expected).abs().amax() / expected.abs().amax()
    assert gap < max(3e-7, rounding_of(kind))


@pytest.mark.parametrize("bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_the_mean_over_counted_tokens_of_the_sentence_read_alone(kind, bos):
    lines = {"en": sentences(9), "fr": sentences(9, 1)}
    found = sentence_vectors(model_of(kind), tokenizer_of(bos), lines, SHORT)
    assert list(found) == ["en", "fr"]
    for language, texts in lines.items():
        assert_vectors(found[language], kind, texts, bos)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "bloom"])
@pytest.mark.parametrize("changes", [{"one_per_row": True}, {"batch_tokens": 1}, {"row_tokens": 64}, {"bos": "always"}])
def test_how_sentences_share_rows_changes_no_vector(kind, changes):
    texts = sentences(12, 2)
    found = sentence_vectors(model_of(kind), tokenizer_of(), {"en": texts}, dataclasses.replace(SHORT, **changes))
    assert_vectors(found["en"], kind, texts)


def test_bos_never_leaves_it_out():
    found = sentence_vectors(model_of("llama"), tokenizer_of(), {"en": sentences(5)}, TextOptions(bos="never"))
    assert_vectors(found["en"], "llama", sentences(5), bos=False)


@pytest.mark.parametrize("batch_tokens", [16, 256])
def test_a_sentence_longer_than_a_row_is_cut_and_all_its_tokens_count_alike(batch_tokens):
    texts = ["the cat", " ".join(some_texts(8, 3)), "le chat dort"]
    found = sentence_vectors(
        model_of("llama"), tokenizer_of(), {"en": texts}, TextOptions(row_tokens=16, batch_tokens=batch_tokens)
    )
    ids = tokenizer_of(False)(texts[1])["input_ids"]
    assert len(ids) > 30
    parts = [stream(model_of("llama"), "llama", [1, *ids[at : at + 15]])[:, 1:] for at in range(0, len(ids), 15)]
    torch.testing.assert_close(found["en"][:, 1].double(), torch.cat(parts, 1).mean(1), rtol=1e-5, atol=1e-6)
    assert_vectors(found["en"][:, [0, 2]], "llama", [texts[0], texts[2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_of_any_precision_gives_float32(dtype):
    texts = sentences(6)
    found = sentence_vectors(lively("llama", dtype), tokenizer_of(), {"en": texts}, SHORT)["en"]
    expected = vectors_by_hand("llama", texts, model=lively("llama", dtype)).float()
    assert found.dtype == torch.float32
    assert (found - expected).abs().amax() <= 8 * torch.finfo(dtype).eps * expected.abs().amax()


def test_a_model_in_training_is_read_without_dropout_and_left_as_it_was():
    model = lively("opt", dropout=0.5).train()
    before = hooks_on(model)
    found = sentence_vectors(model, tokenizer_of(), {"en": sentences(4)}, SHORT)["en"]
    assert_vectors(found, "opt", sentences(4))
    assert hooks_on(model) == before
    assert model.training
    assert not found.requires_grad
    assert not found.is_inference()


def test_a_stream_that_is_not_finite_is_refused():
    model = lively("llama")
    find(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[3:] = torch.inf
    with pytest.raises(ModelError, match="bfloat16"):
        sentence_vectors(model, tokenizer_of(), {"en": sentences(4)}, SHORT)


# --- tables ---


def made(seed, languages=("en", "fr", "zh"), layers=2, count=32, width=5):
    """Sentences with a meaning shared by all languages, each language's shift, and noise."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    meaning = draw(layers, count, width)
    return {k: meaning + 2 * draw(layers, 1, width) + 0.5 * draw(layers, count, width) for k in languages}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(16, 45), st.integers(2, 6))
def test_the_tables_are_those_of_the_definition(seed, languages, count, width):
    vectors = made(seed, ("en", "fr", "zh", "id")[:languages], 2, count, width)
    assert_by_hand((dominance(vectors, resamples=10), pairs(vectors)), vectors)


@pytest.mark.parametrize("kind", ["llama", "opt", "bloom"])
def test_a_model_s_tables_are_those_of_its_sentences_read_one_by_one(kind):
    lines = {language: sentences(20, seed) for seed, language in enumerate(("en", "fr", "zh"))}
    found = similarity(model_of(kind), tokenizer_of(), lines, row_tokens=128, batch_tokens=256, resamples=10)
    vectors = {language: vectors_by_hand(kind, texts) for language, texts in lines.items()}
    assert_by_hand((found["dominance"], found["pairs"]), vectors, 1e-4)


def test_columns_and_types():
    vectors = made(0)
    expected = {"layer": pl.Int64, "language": pl.String}
    floats = ("dominance", "mismatched", "difference", "low", "high", "p_at_1", "p_at_1_chance", "norm")
    assert dict(dominance(vectors).schema) == {**expected, **dict.fromkeys(floats, pl.Float64)}
    strings = {"layer": pl.Int64, "a": pl.String, "b": pl.String}
    assert dict(pairs(vectors).schema) == {**strings, "cosine": pl.Float64, "mismatched": pl.Float64}


@pytest.mark.parametrize(("count", "known"), [(312, False), (313, True)])
def test_under_20_blocks_of_half_b_there_is_no_interval(count, known):
    found = dominance(made(1, count=count, layers=1), resamples=50)
    for name in ("low", "high"):
        assert found[name].is_null().sum() == (0 if known else len(found))


def test_the_interval_resamples_blocks_of_8_lines_of_half_b():
    vectors = made(2, ("en", "fr"), 1, 332, 3)
    found = dominance(vectors, resamples=300, seed=7)
    for row in found.iter_rows(named=True):
        _, difference = dominance_by_hand(vectors, 0, row["language"])
        block = [s // 8 for s in in_b(332)]
        blocks = sorted(set(block))
        amount = np.array([sum(d for d, at in zip(difference, block, strict=True) if at == one) for one in blocks])
        size = np.array([float(block.count(one)) for one in blocks])
        assert size.tolist() == [8.0] * 20 + [4.0]
        drawn = Resamples(21, 300, 7)
        assert (row["low"], row["high"]) == pytest.approx(drawn.interval(drawn.ratio(amount, size))[1:])
        assert row["low"] < row["difference"] < row["high"]


def test_the_seed_alone_decides_the_interval():
    vectors = made(3, count=330, layers=1)
    a, b, c = (dominance(vectors, resamples=60, seed=seed) for seed in (1, 1, 2))
    assert a.equals(b)
    assert a["low"].to_list() != c["low"].to_list()
    assert a.drop("low", "high").equals(c.drop("low", "high"))


# --- planted vectors ---


def column(table, name, language):
    return table.filter(language=language)[name].to_list()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 50))
def test_languages_that_are_a_constant_shift_apart_are_retrieved_perfectly(seed, size):
    generator = torch.Generator().manual_seed(seed)
    meaning = torch.randn(2, 40, 8, generator=generator, dtype=torch.float64)
    shifts = {k: size * torch.randn(2, 1, 8, generator=generator, dtype=torch.float64) for k in ("en", "fr", "zh")}
    found = dominance({k: meaning + shift for k, shift in shifts.items()}, resamples=10)
    assert found["dominance"].to_list() == pytest.approx([1.0] * 6)
    assert found["p_at_1"].to_list() == [1.0] * 6
    assert (found["difference"] > 0).all()


def test_vectors_that_share_no_meaning_differ_by_nothing():
    generator = torch.Generator().manual_seed(4)
    languages = ("en", "fr", "zh")
    vectors = {k: torch.randn(2, 640, 64, generator=generator) + 1 for k in languages}
    found = dominance(vectors, resamples=200)
    assert (found["dominance"] > 0.3).all()  # the shift alone makes cosines large
    assert found["difference"].abs().max() < 0.03
    assert found["p_at_1"].max() < 0.02
    assert found["p_at_1_chance"].to_list() == [1 / 320] * 6
    covered = (found["low"] <= 0) & (found["high"] >= 0)
    assert covered.sum() >= 4


@pytest.mark.parametrize("size", [10.0, 100.0])
def test_a_large_mean_raises_dominance_and_its_mismatched_twin_but_turns_no_difference_round(size):
    vectors = made(5, count=64, width=16)
    moved = {**vectors, "fr": vectors["fr"] + size}
    plain, large = dominance(vectors, resamples=10), dominance(moved, resamples=10)
    for name in ("dominance", "mismatched", "norm"):
        assert all(a < b for a, b in zip(column(plain, name, "fr"), column(large, name, "fr"), strict=True))
    for before, after in zip(column(plain, "difference", "fr"), column(large, "difference", "fr"), strict=True):
        assert 0 < after < before
    for language in ("en", "zh"):  # what the other languages are shifted by does not reach them
        for name in ("dominance", "mismatched", "p_at_1", "norm"):
            assert column(large, name, language) == pytest.approx(column(plain, name, language))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_stretching_all_vectors_stretches_the_norm_alone(seed, factor):
    vectors = made(seed)
    plain, stretched = (dominance(v, resamples=10) for v in (vectors, {k: factor * h for k, h in vectors.items()}))
    for name in ("dominance", "mismatched", "p_at_1"):
        assert stretched[name].to_list() == pytest.approx(plain[name].to_list())
    assert stretched["norm"].to_list() == pytest.approx((factor * plain["norm"]).to_list())
    pair = [pairs(v)["cosine"].to_list() for v in (vectors, {k: factor * h for k, h in vectors.items()})]
    assert pair[0] == pytest.approx(pair[1])


def test_half_a_gives_the_means_alone_and_half_b_none_of_them():
    vectors, order = made(6, count=48), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    b = torch.tensor(in_b(48))
    a = torch.tensor([s for s in range(48) if s not in in_b(48)])
    mixed = vectors["fr"].clone()
    mixed[:, a] = vectors["fr"][:, a[order]]
    plain, found = dominance(vectors, resamples=10), dominance({**vectors, "fr": mixed}, resamples=10)
    for name in FLOATS:
        assert found[name].to_list() == pytest.approx(plain[name].to_list())
    assert pairs({**vectors, "fr": mixed}).equals(pairs(vectors))
    broken = vectors["fr"].clone()
    broken[:, b] = vectors["fr"][:, b[order]]
    found = dominance({**vectors, "fr": broken}, resamples=10)
    assert found["norm"].to_list() == pytest.approx(plain["norm"].to_list())
    assert all(x < y for x, y in zip(column(found, "p_at_1", "fr"), column(plain, "p_at_1", "fr"), strict=True))


def test_a_sentence_as_near_as_its_own_translation_is_no_hit():
    vectors = {k: torch.ones(1, 32, 3) for k in ("en", "fr")}
    found = dominance(vectors, resamples=10)
    assert found["dominance"].to_list() == pytest.approx([1.0, 1.0])
    assert found["difference"].to_list() == pytest.approx([0.0, 0.0])
    assert found["p_at_1"].to_list() == [0.0, 0.0]


# --- what is refused ---


def lines_of(count=16, **languages):
    return {"en": sentences(count), "fr": sentences(count, 1), **languages}


def measured(lines, **changes):
    return similarity(model_of("llama"), tokenizer_of(), lines, row_tokens=128, resamples=10, **changes)


@pytest.mark.parametrize("empty", ["", "  ", "\t"])
def test_an_empty_line_is_refused_naming_it(empty):
    texts = sentences(16)
    texts[6] = empty
    for run in (measured, lambda lines: sentence_vectors(model_of("llama"), tokenizer_of(), lines)):
        with pytest.raises(TextError, match=r"zh, line 7 is empty"):
            run(lines_of(zh=texts))


@pytest.mark.parametrize("line", ["</s>", "<s></s>", "<pad>"])
def test_a_line_of_special_tokens_is_refused_naming_it(line):
    texts = sentences(16)
    texts[2] = line
    with pytest.raises(TextError, match=r"zh, line 3 .*counts"):
        measured(lines_of(zh=texts))


def test_languages_of_different_numbers_of_lines_are_refused_naming_both_even_beyond_those_used():
    for run in (measured, lambda lines: sentence_vectors(model_of("llama"), tokenizer_of(), lines)):
        with pytest.raises(TextError, match=r"en 20.*fr 20.*zh 19"):
            run(lines_of(20, zh=sentences(19)))
    with pytest.raises(TextError, match=r"zh 19"):
        measured(lines_of(20, zh=sentences(19)), sentences=16)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ({}, "0 languages"),
        ({"en": sentences(16)}, "1 languages"),
        (lines_of(15), "15 aligned lines"),
        ({"fr": sentences(16), "fra_Latn": sentences(16)}, "fr is given twice"),
        (lines_of(xx_bad=sentences(16)), "xx_bad"),
        (lines_of(zh=[Path("a.txt")] * 16), "zh are not all strings"),
        (lines_of(zh="no/such/file.txt"), "no/such/file.txt"),
    ],
)
def test_what_cannot_be_compared_is_refused(lines, match):
    with pytest.raises(TextError, match=match):
        measured(lines)


def test_too_few_sentences_are_refused_before_the_model_runs():
    with pytest.raises(TextError, match="8 aligned lines"):
        similarity(None, None, lines_of(), sentences=8)


def test_options_out_of_range_are_refused():
    for name in ("sentences", "resamples"):
        with pytest.raises(OptionError, match=name):
            SimilarityOptions(**{name: 0})


@pytest.mark.parametrize("shape", [(2, 31, 5), (2, 32, 4), (1, 32, 5), (32, 5)])
def test_vectors_of_different_shapes_are_refused_naming_them(shape):
    vectors = {**made(0), "id": torch.zeros(shape)}
    for table in (dominance, pairs):
        with pytest.raises(MismatchError, match=r"en \(2, 32, 5\).*id"):
            table(vectors)


# --- files ---


def test_files_are_read_line_by_line(tmp_path):
    lines = lines_of()
    (tmp_path / "en.txt").write_bytes("\n".join(lines["en"]).encode())
    (tmp_path / "fr.txt").write_bytes(b"\xef\xbb\xbf" + "".join(f" {line}\r\n" for line in lines["fr"]).encode())
    rows = "".join(f'{{"line": "{line}"}}\n' for line in lines["en"])
    (tmp_path / "zh.jsonl").write_text(rows, encoding="utf-8")
    parallel = {"eng_Latn": tmp_path / "en.txt", "fr": str(tmp_path / "fr.txt"), "zh": tmp_path / "zh.jsonl"}
    assert aligned_lines(parallel, column="line") == {**lines, "zh": lines["en"]}
    assert aligned_lines({"en": Documents(lines["en"])}) == {"en": lines["en"]}
    found = measured(parallel, column="line")
    assert found["dominance"].equals(measured({**lines, "zh": lines["en"]})["dominance"])


@pytest.mark.parametrize("text", ["", "one\n\n", "one\n\ntwo\n"])
def test_an_empty_line_in_a_file_is_not_skipped(tmp_path, text):
    (tmp_path / "en.txt").write_text(text, encoding="utf-8")
    with pytest.raises(TextError, match=rf"en, line {2 if text else 1} is empty"):
        aligned_lines({"en": tmp_path / "en.txt"})


def test_only_the_first_sentences_are_used():
    lines = lines_of(40)
    found = measured(lines, sentences=24)
    assert found["dominance"].equals(measured({k: texts[:24] for k, texts in lines.items()})["dominance"])
    assert found["dominance"]["p_at_1_chance"][0] == 1 / 8
