"""What is added up at a site is what its definition says, by the loops in C and by torch, of any numbers, folds and layout."""

from __future__ import annotations

import logging
import shlex
import stat
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.corpus import FOLDS
from lape.recording import adding, fused
from lape.recording.adding import Folds
from lape.values.histogram import BINS, EDGES

EVERY = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LOOPS = adding.fused()


@pytest.fixture(params=["loops in C", "torch"])
def way(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(adding, "fused", lambda: None)
    elif LOOPS is None:
        pytest.skip("there is no C compiler")
    return request.param


def numbers(tokens: int, width: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Of both signs, small and large, with zeros of both signs and numbers on edges of the histogram."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    x *= 4.0 ** torch.randint(-6, 5, (tokens, width), generator=generator)
    place = torch.rand(tokens, width, generator=generator)
    edges = EDGES[torch.randint(0, len(EDGES), (tokens, width), generator=generator)].double()
    x = torch.where(place < 0.1, edges, x)
    return torch.where(place > 0.95, -0.0, torch.where(place > 0.9, 0.0, x)).to(dtype)


def assert_added(a: torch.Tensor, fold: torch.Tensor) -> None:
    """One after the other, in Python's numbers."""
    width = a.shape[1]
    sums, moments = torch.zeros(3, width, dtype=torch.float64), torch.zeros(2, width, dtype=torch.float64)
    fires, bins = torch.zeros(FOLDS, width, dtype=torch.int64), torch.zeros(width, BINS, dtype=torch.int64)
    for _ in range(2):  # added to what is there
        adding.count(a, Folds(fold), sums, fires)
        adding.moments(a, Folds(fold), moments)
        adding.bin(a, Folds(fold), bins)
    x = a[fold >= 0].double()
    kept = fold[fold >= 0]
    expected = torch.stack([x.sum(0), x.square().sum(0), x.clamp_min(0).sum(0)])
    near = 1e-12 if a.dtype == torch.float64 else 1e-5
    scale = torch.stack([x.abs().sum(0), x.square().sum(0), x.abs().sum(0)]) + 1e-30
    assert ((sums - 2 * expected).abs() <= near * scale).all()
    assert ((moments - 2 * expected[:2]).abs() <= near * scale[:2]).all()
    for number in range(FOLDS):
        assert torch.equal(fires[number], 2 * (x[kept == number] > 0).sum(0))
    place = torch.bucketize(a[fold >= 0].float(), EDGES)
    for neuron in range(width):
        assert torch.equal(bins[neuron], 2 * torch.bincount(place[:, neuron], minlength=BINS))


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 300),
    width=st.integers(1, 1100),
    dtype=st.sampled_from(EVERY),
    seed=st.integers(0, 2**20),
    run=st.integers(1, 50),
)
def test_loops_add_what_the_definition_says(tokens, width, dtype, seed, run):
    if LOOPS is None:
        pytest.skip("there is no C compiler")
    fold = torch.randint(-1, FOLDS, (tokens,), generator=torch.Generator().manual_seed(seed))
    assert_added(numbers(tokens, width, dtype, seed), fold[torch.arange(tokens) // run])


@pytest.mark.parametrize("dtype", EVERY)
@pytest.mark.parametrize("count", [0, 1, 129, 1000])
def test_both_ways_add_what_the_definition_says(way, dtype, count):
    fold = torch.arange(count) // 30 % (FOLDS + 1) - 1
    assert_added(numbers(count, 70, dtype, count), fold)


def test_a_part_of_wider_rows_and_columns_in_any_order_are_read_where_they_lie(way):
    whole = numbers(200, 96, torch.float32, 3)
    fold = torch.arange(200) % FOLDS
    assert_added(whole[:, 11:53], fold)
    assert_added(whole[::3], fold[::3])
    assert_added(whole.T[:, :150], fold[:96])


def test_what_does_not_count_may_be_anything(way):
    a, fold = numbers(150, 40, torch.bfloat16, 5), torch.arange(150) % FOLDS
    fold[::7] = -1
    a[::7] = torch.tensor([torch.nan, torch.inf, -torch.inf, 1]).repeat(10).bfloat16()
    assert_added(a, fold)


def test_tokens_that_reach_an_expert_are_of_their_own_folds(way):
    a, folds = numbers(40, 12, torch.float32, 7), Folds(torch.arange(90) % (FOLDS + 1) - 1)
    rows = torch.arange(0, 80, 2)
    sums, fires = torch.zeros(3, 12, dtype=torch.float64), torch.zeros(FOLDS, 12, dtype=torch.int64)
    adding.count(a, folds.some(rows), sums, fires)
    fold = (torch.arange(90) % (FOLDS + 1) - 1)[rows]
    for number in range(FOLDS):
        assert torch.equal(fires[number], (a[fold == number] > 0).sum(0))
    assert torch.equal(folds.some(rows).sizes(), torch.bincount(fold[fold >= 0], minlength=FOLDS))


def test_no_sum_depends_on_the_number_of_threads(way):
    a, folds = numbers(700, 1500, torch.bfloat16, 11), Folds(torch.arange(700) // 20 % FOLDS)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        sums, fires = torch.zeros(3, 1500, dtype=torch.float64), torch.zeros(FOLDS, 1500, dtype=torch.int64)
        adding.count(a, folds, sums, fires)
        found.append((sums, fires))
    torch.set_num_threads(before)
    for sums, fires in found[1:]:
        assert torch.equal(sums, found[0][0])
        assert torch.equal(fires, found[0][1])


@pytest.fixture
def fresh(tmp_path, monkeypatch, caplog):
    """As in a process that has not recorded yet, with an empty cache; gives what is said."""
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))
    adding.fused.cache_clear()
    caplog.set_level(logging.WARNING, "lape")
    yield lambda: [one.getMessage() for one in caplog.records if one.name == "lape"]
    adding.fused.cache_clear()


def test_without_a_compiler_torch_adds_and_nothing_is_said(fresh, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert adding.fused() is None
    assert fresh() == []


def test_on_macos_a_compiler_is_taken_where_one_is_named(fresh, monkeypatch):
    monkeypatch.setattr(fused.platform, "system", lambda: "Darwin")
    monkeypatch.delenv("CC", raising=False)
    assert adding.fused() is None
    assert fresh() == []
    monkeypatch.setenv("CC", shlex.quote(sys.executable))  # it compiles no C
    adding.fused.cache_clear()
    assert adding.fused() is None
    assert len(fresh()) == 1


def test_a_compiler_that_fails_is_said_once(fresh, monkeypatch, tmp_path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'cc: no OpenMP here' >&2\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("CC", str(broken))
    assert adding.fused() is None
    assert adding.fused() is None
    assert fresh() == ["Sums are made by torch, since the loops in C cannot be compiled: cc: no OpenMP here"]
    assert not list((tmp_path / "cache" / "fused").iterdir())


@pytest.mark.skipif(LOOPS is None, reason="there is no C compiler")
@pytest.mark.parametrize(("right", "wrong"), [("x > 0;", "x >= 0;"), ("x * x", "x + x"), ("place + ", "place - ")])
def test_loops_that_add_otherwise_are_not_used(fresh, monkeypatch, tmp_path, right, wrong):
    source = fused._SOURCE.read_text()
    assert right in source or right == "place + "
    changed = (
        source.replace("(place ^ sign) +", "(place ^ sign) -") if right == "place + " else source.replace(right, wrong)
    )
    assert changed != source
    (tmp_path / "fused.c").write_text(changed)
    monkeypatch.setattr(fused, "_SOURCE", tmp_path / "fused.c")
    assert adding.fused() is None
    assert fresh() == ["Sums are made by torch, since those of the loops in C differ: in torch.bfloat16"]


@pytest.mark.skipif(LOOPS is None, reason="there is no C compiler")
def test_loops_are_compiled_once_and_kept(fresh, monkeypatch, tmp_path):
    assert adding.fused() is not None
    kept = list((tmp_path / "cache" / "fused").iterdir())
    assert [path.suffix for path in kept] == [".so"]
    adding.fused.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(fused.subprocess, "run", lambda *_, **__: 1 / 0)
        assert adding.fused() is not None
    kept[0].unlink()  # not written over: what is loaded lies there
    kept[0].write_bytes(b"damaged")
    adding.fused.cache_clear()
    assert adding.fused() is not None
    assert fresh() == []


@pytest.mark.skipif(LOOPS is None, reason="there is no C compiler")
def test_where_no_cache_can_be_written_they_are_compiled_for_this_process(fresh, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert adding.fused() is not None
    assert fresh() == []
