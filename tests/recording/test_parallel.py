"""Tensor parallelism: two processes that share a model count what one with all of it counts, neuron by neuron."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version

import lape
from lape.errors import ModelError, OptionError
from lape.values.same import Verdict, compared, lasting
from lape.values.stats import ActivationStats
from support.brute import assert_near, lively, some_texts, tokenizer_of
from support.parallel_child import OPTIONS
from support.zoo.table import KINDS
from support.zoo.written import build

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__).release < (5, 24), reason="shares out models from transformers 5.24 on"
)

CHILD = Path(__file__).parents[1] / "support" / "parallel_child.py"
SHARED = ("llama", "gemma3_text", "phi3", "gpt_neox")
"""Gate and up by themselves, with a functional activation, fused (brought together before it), and a plain MLP."""
REFUSED = {
    "opt": "has no `tp_plan`",
    "one": "cannot be split among 2 processes",
    "odd": "are not all alike",
}


def made(kind):
    if kind == "one":  # a single head of keys and values
        return lively("llama", num_key_value_heads=1)
    if kind == "odd":  # experts
        return build("qwen3_moe", KINDS["qwen3_moe"]).double()
    return lively(kind)


def together(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run([*launch, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in (*SHARED, *REFUSED):
        made(kind).save_pretrained(folder / kind)
        tokenizer_of().save_pretrained(folder / kind)
    for seed, language in enumerate(("en", "fr")):
        (folder / f"{language}.txt").write_text("\n".join(some_texts(90, seed)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory) -> Path:
    """What two processes recorded, all kinds one after the other."""
    out = tmp_path_factory.mktemp("out")
    done = together(CHILD, folder, out, *SHARED, *REFUSED)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def alone(folder: Path, kind: str) -> ActivationStats:
    texts = {language: str(folder / f"{language}.txt") for language in ("en", "fr")}
    return lape.record(*lape.load(folder / kind, device="cpu"), texts, **OPTIONS)


def assert_same(found: ActivationStats, expected: ActivationStats) -> None:
    assert found.space == expected.space
    for key in ("model", "tokenizer", "counting", "corpus", "options"):
        assert lasting(found.manifest)[key] == lasting(expected.manifest)[key], key
    assert compared(found.manifest, expected.manifest) == Verdict()
    for language in expected.languages:
        for name, tensor in expected[language].tensors.items():
            other = found[language].tensors[name]
            if tensor.dtype == torch.int64:
                assert torch.equal(other, tensor), name
            else:
                assert_near(other.double(), tensor.double(), 1e-3 if name == "texts" else 1e-10)  # texts are halves


@pytest.mark.parametrize("kind", SHARED)
def test_two_processes_count_what_one_counts_and_each_has_the_whole(folder, out, kind):
    expected = alone(folder, kind)
    assert expected["en"].fires.any()
    assert_same(ActivationStats.load(out / kind), expected)
    for rank in (0, 1):
        assert_same(ActivationStats.load(out / f"{kind}.{rank}.safetensors"), expected)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_cannot_be_shared_out_are_refused_by_every_process(out, kind):
    for rank in (0, 1):
        said = (out / f"{kind}.{rank}.txt").read_text()
        assert said.startswith("ModelError")
        assert REFUSED[kind] in said


def test_a_stopped_run_goes_on_in_all_processes(folder, tmp_path):
    script = CHILD
    assert together(script, folder, tmp_path, "llama", "--stop").returncode == 0
    assert (tmp_path / "llama.1.txt").read_text().startswith("KeyboardInterrupt")
    assert (tmp_path / "llama.partial" / "en.recorded").exists()
    assert together(script, folder, tmp_path, "llama").returncode == 0
    for path in (tmp_path / "llama", *(tmp_path / f"llama.{rank}.safetensors" for rank in (0, 1))):
        assert_same(ActivationStats.load(path), alone(folder, "llama"))


def test_the_command_line_speaks_once(folder, tmp_path):
    flags = [f"--text=en={folder}/en.txt", f"--out={tmp_path}/run", "--document=line", "--tensor-parallel"]
    command = f"from lape.cli import main; main({['record', str(folder / 'llama'), *flags]!r})"
    done = together("--no-python", sys.executable, "-c", command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Recorded 132 neurons") == 1
    assert "Traceback" not in done.stderr


def test_without_several_processes_it_is_said_how_to_start_them(folder):
    with pytest.raises(OptionError, match="torchrun --nproc-per-node 2"):
        lape.load(folder / "llama", tensor_parallel=True)


@pytest.mark.parametrize("place", [{"device": "cpu"}, {"device_map": "auto"}, {"bits": 8}])
def test_weights_are_not_placed_twice(folder, monkeypatch, place):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="tensor_parallel places the weights itself"):
        lape.load(folder / "llama", tensor_parallel=True, **place)


def test_a_shared_out_model_is_recorded_only(monkeypatch):
    from lape.model import find as finding

    monkeypatch.setattr(finding, "is_shared_out", lambda _: True)
    with pytest.raises(ModelError, match="only be recorded"):
        finding.find(lively("llama"))
