"""Counts and sums of activations are those of a float64 oracle that reads the same activations, whatever their format, layout and folds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import lape
from lape.data.corpus import FOLDS
from lape.data.texts import Documents
from lape.recording import adding, counter
from lape.recording.adding import Folds
from lape.recording.observers import sums as observed
from lape.recording.record import record
from lape.values.histogram import BINS, EDGES
from lape.values.stats import ActivationStats, merge
from support.brute import lively, some_texts, tokenizer_of
from support.zoo.table import KINDS
from support.zoo.written import build

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
NEAR = 1e-6
"""How far a sum may lie from the oracle's, as a share of the sum of the absolute values that are added."""


def made_numbers(tokens: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Numbers of both signs, small and large, with zeros of both signs, the smallest denormal, and numbers on edges of the histogram."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    x *= 4.0 ** torch.randint(-6, 5, (tokens, width), generator=generator)
    place = torch.rand(tokens, width, generator=generator)
    edges = EDGES[torch.randint(0, len(EDGES), (tokens, width), generator=generator)].double()
    x = torch.where(place < 0.1, edges, x).to(dtype)
    x[place > 0.86] = torch.tensor(smallest(dtype), dtype=dtype)
    x[place > 0.9] = 0.0
    x[place > 0.95] = -0.0
    return x


def smallest(dtype: torch.dtype) -> float:
    """The smallest number above 0 of a format."""
    info = torch.finfo(dtype)
    return float(info.smallest_normal * info.eps)


def add(a: Tensor, folds: Folds) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums (3, width), moments (2, width), fires (folds, width) and bins (width, bins), added to what is there already."""
    width = a.shape[1]
    sums, moments = torch.zeros(3, width, dtype=torch.float64), torch.zeros(2, width, dtype=torch.float64)
    fires, bins = torch.zeros(FOLDS, width, dtype=torch.int64), torch.zeros(width, BINS, dtype=torch.int64)
    for _ in range(2):
        adding.count(a, folds, sums, fires)
        adding.moments(a, folds, moments)
        adding.bin(a, folds, bins)
    return sums, moments, fires, bins


def assert_added(a: Tensor, fold: Tensor) -> None:
    """What is added twice is twice what the oracle gives."""
    sums, moments, fires, bins = add(a, Folds(fold))
    x, kept = a[fold >= 0].double(), fold[fold >= 0]
    expected = torch.stack([x.sum(0), x.square().sum(0), x.clamp_min(0).sum(0)])
    scale = torch.stack([x.abs().sum(0), x.square().sum(0), x.abs().sum(0)])
    slack = 2 * (NEAR * scale + len(x) * smallest(torch.float32))  # smaller squares than float32 has are 0
    assert ((sums - 2 * expected).abs() <= slack).all()
    assert ((moments - 2 * expected[:2]).abs() <= slack[:2]).all()
    for number in range(FOLDS):
        assert torch.equal(fires[number], 2 * (x[kept == number] > 0).sum(0))
    place = torch.bucketize(a[fold >= 0].float(), EDGES)
    for neuron in range(a.shape[1]):
        assert torch.equal(bins[neuron], 2 * torch.bincount(place[:, neuron], minlength=BINS))


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 300),
    width=st.integers(1, 1100),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**20),
    run=st.integers(1, 50),
)
@example(tokens=1, width=7, dtype=torch.bfloat16, seed=0, run=1)
@example(tokens=3000, width=2100, dtype=torch.float32, seed=1, run=200)
@example(tokens=3000, width=2100, dtype=torch.bfloat16, seed=2, run=25)
def test_counts_and_sums_are_the_oracle_s(tokens, width, dtype, seed, run):
    fold = torch.randint(-1, FOLDS, (tokens,), generator=torch.Generator().manual_seed(seed))
    assert_added(made_numbers(tokens, width, dtype, seed), fold[torch.arange(tokens) // run])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [0, 1, 129, 1000])
def test_any_number_of_tokens_is_added(dtype, tokens):
    assert_added(made_numbers(tokens, 70, dtype, tokens), torch.arange(tokens) // 30 % (FOLDS + 1) - 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [0.1, -0.1, 1 / 3, 1000.1])
def test_equal_numbers_do_not_add_up_their_rounding(dtype, number):
    """Rounding errors of one sign are the worst case for long sums."""
    assert_added(torch.full((5000, 64), number, dtype=dtype), torch.arange(5000) // 700 % FOLDS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_smallest_number_fires_and_zeros_do_not(dtype):
    a = torch.tensor([[smallest(dtype), -smallest(dtype), 0.0, -0.0]] * 3, dtype=dtype)
    _, _, fires, _ = add(a, Folds(torch.tensor([0, 5, -1])))
    assert fires[[0, 5]].tolist() == [[2, 0, 0, 0]] * 2
    assert fires.sum() == 4
    assert_added(a, torch.tensor([0, 5, -1]))


def test_folds_without_tokens_stay_at_zero():
    a = made_numbers(200, 33, torch.bfloat16, 4)
    assert_added(a, torch.arange(200) % 2 * 7)
    assert_added(a, torch.full((200,), -1))


def test_strided_activations_are_read_where_they_lie():
    whole = made_numbers(200, 96, torch.float32, 3)
    fold = torch.arange(200) % FOLDS
    assert_added(whole[:, 11:53], fold)
    assert_added(whole[::3], fold[::3])
    assert_added(whole.T[:, :150], fold[:96])
    assert_added(whole.bfloat16()[:, ::2], fold)


def test_activations_are_left_as_they_are():
    for dtype in DTYPES:
        a = made_numbers(150, 40, dtype, 6)
        before = a.clone()
        add(a, Folds(torch.arange(150) % (FOLDS + 1) - 1))
        assert torch.equal(a, before)


def test_what_does_not_count_may_be_anything():
    a, fold = made_numbers(150, 40, torch.bfloat16, 5), torch.arange(150) % FOLDS
    fold[::7] = -1
    a[::7] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1]).repeat(10).bfloat16()
    assert_added(a, fold)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_shows_in_the_sums(dtype, wrong):
    """By the sums a recording refuses it; the counts are exact all the same."""
    a = made_numbers(150, 40, dtype, 5)
    a[100, 3] = wrong
    sums, moments, fires, _ = add(a, Folds(torch.arange(150) % FOLDS))
    odd = torch.zeros(40, dtype=torch.bool)
    odd[3] = True
    assert torch.equal(~torch.isfinite(sums[:2]), odd.expand(2, -1))
    assert torch.equal(~torch.isfinite(moments), odd.expand(2, -1))
    assert torch.equal(fires.sum(0), 2 * (a > 0).sum(0))


def test_tokens_that_reach_an_expert_are_of_their_own_folds():
    fold = torch.arange(90) % (FOLDS + 1) - 1
    a, folds, rows = made_numbers(40, 12, torch.float32, 7), Folds(fold), torch.arange(0, 80, 2)
    for one, other in zip(add(a, folds.some(rows)), add(a, Folds(fold[rows])), strict=True):
        assert torch.equal(one, other)
    assert_added(a, fold[rows])
    assert torch.equal(folds.some(rows).sizes(), torch.bincount(fold[rows][fold[rows] >= 0], minlength=FOLDS))


DIGEST = """
import hashlib, torch
from lape.data.corpus import FOLDS
from lape.recording import adding
from lape.recording.adding import Folds
generator, digest = torch.Generator().manual_seed(0), hashlib.sha256()
for tokens, width in ((700, 1500), (2048, 2048), (5, 70)):
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        a = torch.randn(tokens, width, generator=generator).to(dtype)
        folds = Folds(torch.arange(tokens) // 20 % FOLDS)
        sums, fires = torch.zeros(3, width, dtype=torch.float64), torch.zeros(FOLDS, width, dtype=torch.int64)
        adding.count(a, folds, sums, fires)
        adding.moments(a, folds, sums[:2])
        digest.update(sums.numpy().tobytes() + fires.numpy().tobytes())
print(torch.get_num_threads(), digest.hexdigest())
"""


def test_no_byte_depends_on_the_number_of_threads():
    digests = {}
    for threads in ("1", "2", "5", "1"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_DYNAMIC": "FALSE"},
            capture_output=True,
            check=True,
            text=True,
        )
        used, digest = done.stdout.split()
        assert used == threads
        digests.setdefault(threads, digest)
        assert digests[threads] == digest
    assert len(set(digests.values())) == 1


# --- whole recordings, and what is selected by them ---

TEXTS = {k: Documents(some_texts(90, seed)) for seed, k in enumerate(("en", "fr", "de"))}


def oracle_count(a: Tensor, folds: Folds, sums: Tensor, fires: Tensor) -> None:
    """`count` in float64, fold by fold."""
    fold = folds.on(a.device)
    oracle_moments(a, folds, sums[:2])
    sums[2] += a[fold >= 0].double().clamp_min(0).sum(0)
    for number in range(FOLDS):
        fires[number] += (a[fold == number] > 0).sum(0)


def oracle_moments(a: Tensor, folds: Folds, sums: Tensor) -> None:
    x = a[folds.on(a.device) >= 0].double()
    sums += torch.stack([x.sum(0), x.square().sum(0)])


@pytest.fixture(scope="module", params=["llama", "mixtral"])
def both(request) -> tuple[ActivationStats, ActivationStats]:
    """Recorded, and added up by the oracle while the same model reads the same text."""
    kind = request.param
    model = lively(kind, torch.bfloat16) if kind == "llama" else build(kind, KINDS[kind], torch.bfloat16)
    ours = record(model, tokenizer_of(), TEXTS, row_tokens=64)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(counter, "count", oracle_count)
        patched.setattr(observed, "moments", oracle_moments)
        return ours, record(model, tokenizer_of(), TEXTS, row_tokens=64)


def test_a_recording_is_the_oracle_s(both):
    ours, expected = both
    for language in TEXTS:
        energy = {"square": "square", "written_square": "written_square"}
        for name, tensor in expected[language].tensors.items():
            found = ours[language].tensors[name]
            if tensor.dtype == torch.int64:
                assert torch.equal(found, tensor), name
                continue
            tokens = int(expected[language].tokens.sum())
            squares = expected[language].tensors[energy.get(name, f"{name}_square" if name == "written" else "square")]
            scale = squares if name in energy else (squares * tokens).sqrt()  # never under the sum of absolute values
            assert ((found - tensor).abs() <= NEAR * scale).all(), name


@pytest.mark.parametrize("method", ["lape", "lap", "random"])
def test_sets_by_counts_are_the_oracle_s(both, method):
    ours, expected = (lape.identify(stats, method) for stats in both)
    for language in TEXTS:
        assert ours[language] == expected[language]
    assert any(len(ours[language]) for language in TEXTS)


@pytest.mark.parametrize(("method", "options"), [("lave", {}), ("difference", {}), ("difference", {"of": "d-prime"})])
def test_sets_by_means_differ_only_at_the_cut(both, method, options):
    """A neuron that is in one set alone lies within 1e-5 of the weakest that both chose."""
    ours, expected = (lape.identify(stats, method, **options) for stats in both)
    for row, language in enumerate(expected.languages):
        common, odd = ours[language] & expected[language], (ours[language] - expected[language]).flat.tolist()
        odd += (expected[language] - ours[language]).flat.tolist()
        assert len(odd) <= len(common) / 10, f"{language}: {odd}"
        if odd:
            scores = expected.scores[row]
            cut = scores[common.flat].min()
            assert ((scores[odd] - cut).abs() <= 1e-5 * cut.abs()).all(), f"{language}: {odd}"
    assert any(len(ours[language]) for language in TEXTS)


def test_a_second_run_gives_the_same_bytes_and_shards_the_same_counts():
    model = lively("llama", torch.bfloat16)
    options = {"row_tokens": 64, "batch_tokens": 128}
    whole, again = (record(model, tokenizer_of(), TEXTS, **options) for _ in range(2))
    merged = merge([record(model, tokenizer_of(), TEXTS, shard=f"{k}/3", **options) for k in (1, 2, 3)])
    for language in TEXTS:
        for name, tensor in whole[language].tensors.items():
            assert torch.equal(tensor, again[language].tensors[name]), name
            assert torch.equal(tensor, merged[language].tensors[name]), name
