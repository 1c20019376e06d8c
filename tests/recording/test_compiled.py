"""Recording inside a compiled graph counts what the model as it is counts, whatever goes on around it."""

from __future__ import annotations

import json
import logging
import os
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from packaging.version import Version

from lape.data.texts import Documents
from lape.model import compiled as graphs
from lape.model import timing
from lape.model.find import find
from lape.recording.engines import compiled
from lape.recording.engines.compiled import CompiledReader, CompiledRecorder
from lape.recording.engines.local import Local
from lape.recording.reader import Reader
from lape.recording.record import record
from lape.values.stats import ActivationStats, merge
from support.brute import assert_near, hooks_on, lively, model_of, some_texts, tokenizer_of
from support.tiny import PACKING
from support.zoo.table import KINDS
from support.zoo.written import build

TEXTS = {"en": Documents(some_texts(70, 0)), "fr": Documents(some_texts(90, 1)), "ja": Documents(some_texts(9, 2))}
OPTIONS = {"row_tokens": 40, "batch_tokens": 120}


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """How long graphs took is remembered where nobody looks."""
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def quick(monkeypatch):
    """Traced as for any compiler, run without one."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, "lape")
    return lambda: [one.getMessage() for one in caplog.records if one.name == "lape"]


def assert_same(a: ActivationStats, b: ActivationStats, share: float = 1e-4) -> None:
    """The same counts; sums up to the rounding of what float64 models compute in float32."""
    assert a.languages == b.languages
    for language in a.languages:
        assert a[language].tensors.keys() == b[language].tensors.keys()
        for name, tensor in a[language].tensors.items():
            if tensor.dtype == torch.int64:
                assert torch.equal(tensor, b[language].tensors[name]), (language, name)
            else:
                assert_near(tensor, b[language].tensors[name], share)


def assert_bits(a: ActivationStats, b: ActivationStats) -> None:
    for language in a.languages:
        for name, tensor in a[language].tensors.items():
            assert torch.equal(tensor, b[language].tensors[name]), (language, name)


@pytest.mark.parametrize(
    ("kind", "one_per_row"),
    [
        (kind, alone)
        for kind in ("llama", "gpt2", "phi3", "opt", "gemma2", "bloom")
        for alone in (False, True)
        if kind in PACKING or not alone  # of the others each document has a row anyway
    ],
)
def test_a_graph_counts_what_the_model_counts(kind, one_per_row, quick, told):
    options = {**OPTIONS, "one_per_row": one_per_row}
    usual = record(model_of(kind), tokenizer_of(), TEXTS, compile="off", **options)
    graph = record(model_of(kind), tokenizer_of(), TEXTS, compile="on", **options)
    assert not told()
    assert_same(usual, graph)
    assert hooks_on(model_of(kind)) == 0


def test_the_compiler_itself_counts_so_too_and_says_so(told):
    """Made by inductor, as for users."""
    usual = record(model_of("llama"), tokenizer_of(), TEXTS, compile="off", **OPTIONS)
    graph = record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    assert not told()
    assert_same(usual, graph)
    single = lively("llama", torch.float32)
    usual = record(single, tokenizer_of(), TEXTS, compile="off", **OPTIONS)
    graph = record(single, tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    off = sum(int((usual[k].fires - graph[k].fires).abs().sum()) for k in TEXTS)
    counted = sum(int(usual[k].tokens.sum()) for k in TEXTS) * len(usual.space)
    assert off <= counted / 1e6


def test_shards_and_a_run_that_was_stopped_count_the_same_in_graphs(tmp_path, quick, monkeypatch):
    options = {**OPTIONS, "compile": "on"}
    whole = record(model_of("llama"), tokenizer_of(), TEXTS, **options)
    parts = [record(model_of("llama"), tokenizer_of(), TEXTS, shard=f"{k}/3", **options) for k in (1, 2, 3)]
    assert_same(whole, merge(parts))

    read, left = compiled.CompiledReader.read, [5]

    def stopping(reader, one):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        read(reader, one)

    again = {**options, "out": tmp_path / "run", "checkpoint_seconds": 0.0}
    monkeypatch.setattr(compiled.CompiledReader, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        record(model_of("llama"), tokenizer_of(), TEXTS, **again)
    monkeypatch.setattr(compiled.CompiledReader, "read", read)
    assert_bits(whole, record(model_of("llama"), tokenizer_of(), TEXTS, **again))


@pytest.mark.skipif(Version(torch.__version__).release < (2, 13), reason="torch 2.7 makes several")
def test_a_graph_is_made_once_for_all_languages_and_texts_of_any_length(quick):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]


def test_two_runs_of_one_model_do_not_count_into_each_other(quick):
    first = record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    kept = {k: first[k].fires.clone() for k in TEXTS}
    second = record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    assert_bits(first, second)
    assert all(torch.equal(first[k].fires, kept[k]) for k in TEXTS)


def test_packed_counts_hold_every_fold_at_its_fullest():
    """128 tokens of the last fold fill the highest bit of the packed number."""
    model = model_of("llama")
    recorder = CompiledRecorder(model, find(model), 2, 256)
    see = recorder._seer(0)
    a = torch.ones(2, 256, find(model).sites[0].width)
    a[..., 0] = -1
    for fold in range(8):
        recorder.count(torch.full((2, 256), fold))
        see(a, None)
    fires = recorder._fires[0]
    assert (fires[:, 0] == 0).all()
    assert (fires[:, 1:] == 512).all()


def test_what_no_compiler_can_make_is_recorded_without_and_said_in_one_line(monkeypatch, told):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no compiler here\nand much more")

    usual = record(model_of("llama"), tokenizer_of(), TEXTS, compile="off", **OPTIONS)
    monkeypatch.setattr(torch, "compile", broken)
    assert_bits(usual, record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS))
    assert told() == ["Recording goes on without torch.compile: no compiler here"]


def test_a_graph_that_counts_wrongly_is_not_used(monkeypatch, told):
    """As where a compiled model is wrong, or hooks are passed over."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    seer = CompiledRecorder._seer

    def shifted(recorder, k):
        see = seer(recorder, k)
        return lambda a, rows: see(a - 0.2, rows)

    usual = record(model_of("llama"), tokenizer_of(), TEXTS, compile="off", **OPTIONS)
    monkeypatch.setattr(CompiledRecorder, "_seer", shifted)
    assert_bits(usual, record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS))
    assert len(told()) == 1
    assert "its counts are off" in told()[0]


def test_a_layer_that_a_graph_passes_over_is_noticed(monkeypatch, told):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    seer = CompiledRecorder._seer
    monkeypatch.setattr(CompiledRecorder, "_seer", lambda self, k: (lambda *_: None) if k == 1 else seer(self, k))
    record(model_of("llama"), tokenizer_of(), TEXTS, compile="on", **OPTIONS)
    assert len(told()) == 1
    assert "Layers [1] were not seen" in told()[0]


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("llama", {"histogram": True}, "histogram is recorded too"),
        ("llama", {"residual": True}, "residual is recorded too"),
        ("mixtral", {}, "the model has experts"),
    ],
)
def test_what_a_graph_does_not_hold_is_recorded_without(name, more, why, told):
    model = build(name, KINDS[name], torch.float64)
    usual = record(model, tokenizer_of(), TEXTS, compile="off", **OPTIONS, **more)
    assert_bits(usual, record(model, tokenizer_of(), TEXTS, compile="on", **OPTIONS, **more))
    assert told() == [f"Recording goes on without torch.compile: {why}"]


@pytest.fixture
def timed(monkeypatch):
    """A clock that each batch without a graph moves by 10 s, and each in one by `graph` s; making one takes `making` s."""
    now = {"is": 0.0, "graph": 5.0, "making": 100.0}
    clock = SimpleNamespace(perf_counter=lambda: now["is"])
    for module in (graphs, timing):
        monkeypatch.setattr(module, "time", clock)
    proven, usual, inside = CompiledReader.proven, Reader.read, CompiledReader.read

    def prove(reader, one):
        now["is"] += now["making"]
        before = now["is"]
        result = proven(reader, one)
        now["is"] = before
        return result

    def read(reader, one):
        usual(reader, one)
        if type(reader) is Reader:
            now["is"] += 10

    def read_inside(reader, one):
        inside(reader, one)
        now["is"] += now["graph"]

    monkeypatch.setattr(CompiledReader, "proven", prove)
    monkeypatch.setattr(Reader, "read", read)
    monkeypatch.setattr(CompiledReader, "read", read_inside)
    monkeypatch.setitem(graphs.LEAST, "cpu", 1)
    return now


LONG = {"en": Documents(some_texts(400, 0))}
FULL = {"row_tokens": 64, "batch_tokens": 128}


def how(tmp_path, name="run", texts=LONG, **more) -> dict:
    record(model_of("llama"), tokenizer_of(), texts, out=tmp_path / name, **{**FULL, **more})
    return json.loads((tmp_path / name / "run.json").read_text())["compiled"]


def test_it_compiles_where_what_is_left_wins_back_the_time_that_making_a_graph_takes(timed, quick, tmp_path):
    batches = how(tmp_path, "first")  # nothing is known: 5 s and 2 s a layer, for a tenth of 10 s a batch
    assert batches["graph"], batches
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "graphs").glob("*.json")]
    assert kept == [{"making": 100, "share": 0.5}]
    assert how(tmp_path, "short", {"en": Documents(some_texts(9, 0))}) == {"graph": False, "why": mock.ANY}


def test_text_that_does_not_win_it_back_is_recorded_without(timed, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "_MAKING", 1e9)
    said = how(tmp_path)
    assert not said["graph"]
    assert said["why"].endswith("making it takes 1000000006 s")


def test_a_graph_that_is_no_faster_is_given_up_and_remembered(timed, quick, tmp_path):
    timed["graph"] = 11.0
    assert how(tmp_path, "first") == {"graph": False, "why": "a batch takes 11 s as a graph, and 10 s without"}
    said = how(tmp_path, "second")
    assert "a graph saves -" in said["why"]
    assert not said["graph"]


def test_what_was_settled_is_kept_when_a_run_goes_on(timed, quick, tmp_path, monkeypatch):
    batch, left = CompiledReader.read, [5]

    def stopping(reader, one):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        batch(reader, one)

    monkeypatch.setattr(CompiledReader, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        how(tmp_path, checkpoint_seconds=0.0)
    monkeypatch.setattr(CompiledReader, "read", batch)
    monkeypatch.setattr(graphs, "_MAKING", 1e9)
    for path in (tmp_path / "cache" / "graphs").glob("*.json"):
        path.unlink()
    assert how(tmp_path, checkpoint_seconds=0.0)["graph"]  # begun anew, it would not


def test_shards_decide_alike_by_their_tokens_alone(timed, quick, tmp_path, monkeypatch):
    assert how(tmp_path, "1", shard="1/3")["why"].endswith("tokens are too few")
    monkeypatch.setitem(graphs.SURELY, "cpu", 100)
    timed["graph"] = 11.0
    assert how(tmp_path, "2", shard="2/3") == how(tmp_path, "3", shard="3/3")
    assert how(tmp_path, "4", shard="1/3")["graph"]


def test_rows_that_are_mostly_padding_and_little_text_are_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "seconds", lambda *_: 1 / 0)
    assert how(tmp_path, "few")["why"].endswith("tokens are too few")
    monkeypatch.setitem(graphs.LEAST, "cpu", 1)
    assert how(tmp_path, "rows", one_per_row=True) == {"graph": False, "why": "batches have many shapes"}
    assert how(tmp_path, "off", compile="off") == {"graph": False, "why": "as was asked"}


def test_what_torch_compiles_is_kept_beside_what_lape_keeps_unless_it_was_told_where(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with graphs._kept_graphs():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "graphs" / "torch")
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    with graphs._kept_graphs():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


def test_a_run_that_counted_nothing_leaves_nothing_but_for_what_was_settled(tmp_path, monkeypatch):
    monkeypatch.setattr(Local, "count", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        how(tmp_path)
    assert not list(tmp_path.glob("run*"))
