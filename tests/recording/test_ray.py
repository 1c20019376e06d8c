"""The cluster's engine, on this machine: exact whatever becomes of its workers."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from lape.cli import main
from lape.errors import MismatchError, ModelError, OptionError
from lape.model.load import ModelOptions
from lape.progress import silent
from lape.recording.engine import RecordOptions
from lape.recording.engines.ray import ClusterOptions, Counter, OnRay, record
from lape.recording.record import record as here
from lape.recording.run import checked_texts, recorded
from lape.values.stats import ActivationStats
from support.brute import assert_near, model_of, some_texts, tokenizer_of

ray = pytest.importorskip("ray", reason="needs the extra ray")
OPTIONS = RecordOptions(document="line", row_tokens=64, batch_tokens=64, residual=True, histogram=True)
TWO = ClusterOptions(engine="ray", workers=2, group_batches=4)
ONE = dataclasses.replace(TWO, workers=1)
"""Where a second worker proves nothing: each imports torch first."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests, whose workers find the tests' modules, and whose turn comes beside other tests: Ray's own are nice to all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        ray.shutdown()  # a page of docs that was run in this process may have left one
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model_of("llama").save_pretrained(folder)
    tokenizer_of().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("texts")
    for language, seed in (("en", 0), ("fr", 1), ("ja", 2)):
        (folder / f"{language}.txt").write_text("\n".join(some_texts(120, seed)), encoding="utf-8")
    return {language: folder / f"{language}.txt" for language in ("en", "fr", "ja")}


@pytest.fixture(scope="module")
def expected(texts) -> ActivationStats:
    return here(model_of("llama"), tokenizer_of(), texts, **vars(OPTIONS))


def assert_same(stats: ActivationStats, expected: ActivationStats) -> None:
    assert stats.languages == expected.languages
    for language in expected.languages:
        for name, tensor in expected[language].tensors.items():
            found = stats[language].tensors[name]
            assert found.dtype == tensor.dtype
            if tensor.dtype == torch.int64:
                assert torch.equal(found, tensor), name
            else:
                assert_near(found, tensor, 1e-10)


def workers() -> list[int]:
    """Processes of this test's cluster that count."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                names[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # gone meanwhile
                continue

    def ours(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return [process for process, name in names.items() if name.startswith("ray::Counter") and ours(process)]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_many_workers_count_what_one_process_counts_also_where_workers_are_killed(
    model, texts, expected, tmp_path, kills
):
    cluster = TWO if kills == 3 else dataclasses.replace(TWO, group_batches=1)
    killed: list[int] = []

    def kill(task: str, done: int, total: int | None) -> None:
        fresh = [process for process in workers() if process not in killed]
        if task == "recording" and 0 < done < (total or 0) and len(killed) < kills and fresh:
            os.kill(fresh[0], signal.SIGKILL)
            killed.append(fresh[0])

    stats = record(model, texts, OPTIONS, cluster=cluster, out=tmp_path / "run", progress=kill)
    assert len(killed) == kills
    assert_same(stats, expected)
    assert stats.manifest["model"]["checksum"] == expected.manifest["model"]["checksum"]
    assert stats.manifest["corpus"] == expected.manifest["corpus"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"stats.safetensors", "run.json"}


def test_a_stopped_run_counts_what_is_missing_or_damaged_and_nothing_else(model, texts, expected, tmp_path):
    seen: list[int] = []

    def watch(task: str, done: int, total: int | None, *, stop: bool) -> None:
        if task == "recording":
            seen.append(done)
            if stop and done > (total or 0) / 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(model, texts, OPTIONS, cluster=TWO, out=tmp_path / "run", progress=partial(watch, stop=True))
    groups = sorted((tmp_path / "run.partial" / "groups").glob("*.partial"))
    whole = sum(count_of(path) for path in groups[2:])
    assert 0 < whole < seen[-1]
    groups[0].write_bytes(groups[0].read_bytes()[:-9])
    groups[1].unlink()
    seen.clear()
    stats = record(model, texts, OPTIONS, cluster=ONE, out=tmp_path / "run", progress=partial(watch, stop=False))
    assert seen[0] == whole
    assert_same(stats, expected)


def count_of(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int(file.get_tensor("tokens").sum())


def test_workers_with_other_weights_are_refused(model, texts, tmp_path):
    other = tmp_path / "other"
    model_of("llama").save_pretrained(other)
    tokenizer_of().save_pretrained(other)

    def engine(folder: Path) -> OnRay:
        made = OnRay(str(other), ModelOptions(), OPTIONS, ONE, folder=folder, progress=silent)
        weights = load_file(other / "model.safetensors")
        weights["model.norm.weight"][0] += 1
        save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
        return made

    with pytest.raises(MismatchError, match=r"A worker's .* has checksum .* began with .* same weights"):
        recorded(engine, tokenizer_of(), checked_texts(texts), OPTIONS, out=tmp_path / "run", progress=silent)


def test_a_worker_counts_nothing_with_other_weights(model):
    worker = Counter(str(model), ModelOptions(), OPTIONS, "0" * 64)
    rows = save({"0.ids": torch.ones(1, 2), "0.fold": torch.zeros(1, 2)})
    *_, failed, message = worker.count("k", 1, rows)
    assert failed == "MismatchError"
    assert "the run began with 000000000000" in message.decode()


def test_what_a_worker_cannot_load_is_said_as_anywhere(texts, tmp_path):
    folder = tmp_path / "nothing"
    folder.mkdir()
    with pytest.raises(ModelError, match="nothing"):
        record(folder, texts, OPTIONS, cluster=ONE, out=tmp_path / "run")
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize("change", [{"attribution": 10}, {"until": 0.9}, {"per_text": True}, {"shard": "1/2"}])
def test_what_only_one_process_records_is_refused(model, texts, tmp_path, change):
    with pytest.raises(OptionError, match=f"{next(iter(change))} is for one process"):
        record(model, texts, RecordOptions(**change), cluster=TWO, out=tmp_path / "run")


def test_workers_share_what_there_is_unless_told():
    assert ClusterOptions(workers=2).needs({"CPU": 2}) == {"num_cpus": 1, "num_gpus": 0}
    assert ClusterOptions(workers=4).needs({"CPU": 2}) == {"num_cpus": 0.5, "num_gpus": 0}
    assert ClusterOptions(workers=3).needs({"CPU": 16, "GPU": 4}) == {"num_cpus": 5, "num_gpus": 1}
    assert ClusterOptions(worker_cpus=2, worker_gpus=0.5).needs({"CPU": 16}) == {"num_cpus": 2, "num_gpus": 0.5}
    with pytest.raises(OptionError, match="worker_gpus is -1"):
        ClusterOptions(worker_gpus=-1)


def test_the_command_line_records_with_workers(model, texts, expected, tmp_path, capsys):
    flags = [flag for language, path in texts.items() for flag in ("--text", f"{language}={path}")]
    options = ["--document", "line", "--row-tokens", "64", "--batch-tokens", "64", "--engine", "ray", "--workers", "2"]
    with pytest.raises(SystemExit) as end:
        main(["record", str(model), *flags, *options, "--out", str(tmp_path / "run")])
    assert end.value.code in (0, None)
    assert "Next: lape identify" in capsys.readouterr().out
    stats = ActivationStats.load(tmp_path / "run")
    assert torch.equal(stats["fr"].fires, expected["fr"].fires)
