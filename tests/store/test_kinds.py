"""A file that is another kind than was expected is called what it is."""

from __future__ import annotations

import gzip
import pickle

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from lape.errors import FileError
from lape.reporting.page import report
from lape.store.kinds import kind_of
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats
from support.made import made_stats


def _folder(name):
    def make(path):
        path.mkdir()
        (path / name).write_text("{}")

    return make


KINDS = {
    "a model in a GGUF file": lambda path: path.write_bytes(b"GGUF\3\0\0\0"),
    "a parquet table": lambda path: pl.DataFrame({"a": [1]}).write_parquet(path),
    "a zip archive, such as PyTorch saves": lambda path: torch.save([1], path),
    "a pickle, such as PyTorch saved once": lambda path: path.write_bytes(pickle.dumps([1])),
    "a file packed with gzip": lambda path: path.write_bytes(gzip.compress(b"x")),
    "a file of activation statistics": lambda path: made_stats().save(path),
    "a safetensors file that lape did not write": lambda path: save_file({"a": torch.ones(1)}, path),
    "JSON": lambda path: path.write_text(' {"a": 1}'),
    "text": lambda path: path.write_bytes(("中" * 1000).encode()),
    "an empty file": lambda path: path.write_bytes(b""),
    "a file of no kind that lape knows": lambda path: path.write_bytes(bytes(range(1, 256))),
    "the folder of a run": _folder("run.json"),
    "a model's folder": _folder("config.json"),
    "a folder": _folder("else"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_told_by_how_it_begins(tmp_path, kind):
    KINDS[kind](tmp_path / "x.safetensors")
    assert kind_of(tmp_path / "x.safetensors") == kind


@pytest.mark.parametrize("kind", ["a model in a GGUF file", "a parquet table", "text", "JSON", "an empty file"])
@pytest.mark.parametrize(
    ("of", "expected"), [(LanguageNeurons, "language neurons"), (ActivationStats, "activation statistics")]
)
def test_a_model_given_for_a_file_of_ours_is_called_a_model_and_not_damaged(tmp_path, of, expected, kind):
    KINDS[kind](tmp_path / "smol.gguf")
    with pytest.raises(FileError, match=rf"smol\.gguf is {kind}\. Expected {expected}") as error:
        of.load(tmp_path / "smol.gguf")
    assert "damaged" not in str(error.value)


def test_a_report_of_a_file_says_what_the_file_is(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra report")
    made_stats().save(tmp_path / "m.safetensors")
    with pytest.raises(
        FileError, match=r"m\.safetensors is a file of activation statistics\. Expected the folder of a run"
    ):
        report(tmp_path / "m.safetensors")
