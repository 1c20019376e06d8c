"""Recording until sets are steady: which sizes are looked at, what is read by then, and that a stopped run ends the same."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from lape.cli.record import until_note
from lape.data.corpus import TextOptions, prepare
from lape.data.texts import Documents
from lape.data.windows import batches
from lape.detect.lape import lape
from lape.detect.stability import doubling, reliability, split_halves, steadiness
from lape.errors import OptionError
from lape.recording.engine import RecordOptions
from lape.recording.record import record
from lape.values.stats import ActivationStats
from support.brute import WORDS, lively, tokenizer_of

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = {"row_tokens": 32, "batch_tokens": 64}


@cache
def wide():
    """A model with neurons enough that sets have 20."""
    return lively("llama", torch.float32, intermediate_size=3000)


@cache
def texts(tokens: int = 4000) -> dict[str, Documents]:
    """Three languages of words of their own, each one document."""
    random = np.random.default_rng(0)
    own = [WORDS[k::3] for k in range(3)]
    return {
        language: Documents([" ".join(random.choice(words, tokens).tolist())])
        for language, words in zip(("en", "fr", "ja"), own, strict=True)
    }


@cache
def to_the_end() -> ActivationStats:
    return record(wide(), tokenizer_of(), texts(), until=1.0, **OPTIONS)


def test_sizes_double_from_4096_tokens_or_two_batches_up_to_all():
    assert list(doubling(37, 512)) == [4096, 8192, 16384, 37 * 512]
    assert list(doubling(16, 2048)) == [4096, 8192, 16384, 32768]
    assert list(doubling(5, 4096)) == [8192, 16384, 5 * 4096]
    assert list(doubling(1, 2048)) == [2048]


@pytest.mark.parametrize("documents", [1, 5, 100])
def test_each_part_of_the_order_holds_every_fold_alike_and_each_token_comes_once(documents):
    some = texts()["en"].texts[0].split()
    cut = Documents([" ".join(some[k::documents]) for k in range(documents)])
    corpus = prepare("en", cut, tokenizer_of(), TextOptions())
    every = batches(corpus, TextOptions(**OPTIONS), packs=True, mixed=True)
    tokens = [at for one in every for row in one for s in row for at in range(s.start, s.start + s.length)]
    assert sorted(tokens) == list(range(len(corpus.tokens)))
    for part in (8, 16, 32):
        places = np.array([s.start for one in every[:part] for row in one for s in row]) * 8 // len(corpus.tokens)
        assert np.ptp(np.bincount(places, minlength=8)) <= max(2, len(places) // 8)


def test_at_the_end_all_text_was_counted_as_without_until():
    whole = record(wide(), tokenizer_of(), texts(), **OPTIONS)
    for language in texts():
        assert torch.equal(to_the_end()[language].tokens, whole[language].tokens)
        flips = (to_the_end()[language].fires - whole[language].fires).abs().sum() / whole[language].fires.sum()
        assert float(flips) < 1e-5


def test_the_curve_tells_the_least_steady_language_at_every_size():
    curve = to_the_end().manifest["until"]["curve"]
    assert len(curve) == 3
    assert curve[0]["tokens"] == pytest.approx(4096 * 31 / 32, rel=0.02), "one token of a row in 32 is BOS"
    stats = to_the_end()
    rows = reliability(lape(stats), split_halves(stats, lape)).rows(named=True)
    known = [row for row in rows if row["language"] != "all" and row["median"] is not None]
    least = min(known, key=lambda row: row["median"])
    assert curve[-1] == steadiness(stats)
    assert {name: curve[-1][name] for name in ("language", "median", "p5")} == {
        name: least[name] for name in ("language", "median", "p5")
    }
    assert curve[-1]["halvings"] == 35


def test_it_stops_all_languages_together_at_the_first_size_that_is_steady_enough():
    sizes = to_the_end().manifest["until"]["curve"]
    mark = sizes[0]["median"]
    stats = record(wide(), tokenizer_of(), texts(), until=mark, **OPTIONS)
    assert stats.manifest["until"] == {"mark": mark, "reached": True, "curve": sizes[:1]}
    assert len({int(stats[language].tokens.sum()) for language in stats.languages}) == 1
    assert all((stats[language].tokens > 0).all() for language in stats.languages)
    assert "Stopped at" in until_note(stats.manifest["until"])


def test_a_stopped_run_ends_the_same(tmp_path):
    def run(**more) -> ActivationStats:
        return record(
            wide(), tokenizer_of(), texts(), until=1.0, out=tmp_path / "run", checkpoint_seconds=0, **OPTIONS, **more
        )

    for at in (10, 150, 200):
        seen: list[str] = []

        def stop(task, done, _total, at=at, seen=seen):
            seen += [task] if task.startswith("recording") and done else []
            if len(seen) > at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(progress=stop)
    stats = run()
    assert stats.manifest["until"] == to_the_end().manifest["until"]
    for language in texts():
        for name, tensor in to_the_end()[language].tensors.items():
            assert torch.equal(stats[language].tensors[name], tensor), name


def test_where_no_language_has_20_neurons_all_text_is_read_and_the_note_says_so():
    stats = record(lively("llama"), tokenizer_of(), texts(200), until=0.5, **OPTIONS)
    assert stats.manifest["until"]["curve"][-1]["median"] is None
    assert not stats.manifest["until"]["reached"]
    assert all(int(stats[language].tokens.sum()) >= 200 for language in stats.languages)
    assert "No language has 20 neurons" in until_note(stats.manifest["until"])


def test_text_that_ends_too_soon_is_said():
    curve = to_the_end().manifest["until"]["curve"]
    assert "short of 1.00" in until_note({"mark": 1.0, "reached": False, "curve": curve})


@pytest.mark.parametrize("options", [{"until": 0.0}, {"until": 1.5}, {"until": 0.8, "shard": "1/2"}])
def test_marks_that_make_no_sense_are_refused(options):
    with pytest.raises(OptionError, match=r"Expected|Give one"):
        RecordOptions(**options)
