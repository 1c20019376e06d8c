"""Files of statistics of another format: the older is read and kept apart, the newer refused."""

from __future__ import annotations

import json
import re

import pytest
import torch

from lape.data.texts import Documents
from lape.errors import FileError, MismatchError, OptionError
from lape.recording.record import record
from lape.store import files
from lape.store.tensors import TensorFile, packed, write_tensors
from lape.values.quantity import WRITTEN, Quantity, described
from lape.values.stats import FORMAT, KIND, ActivationStats, merge
from support.brute import model_of, some_texts, tokenizer_of
from support.made import EXPERTS, made_stats, same_tensors

HEAD = {
    "kind": "activation statistics",
    "format": 1,
    "languages": ["en"],
    "space": [[0, None, 2], [1, None, 1]],
    "manifest": {"counting": {"bos": "auto"}, "corpus": {"en": {"documents": 1, "hash": "h", "tokens": 9}}},
}
PARTS = [  # name, type, shape, numbers: as a file of format 1 has them
    ("en/fires", "I64", [2, 3], [1, 2, 3, 4, 0, 2]),
    ("en/histogram", "I64", [3, 2], [1, 8, 2, 7, 3, 6]),
    ("en/positive", "F64", [3], [1.5, 2.5, 3.5]),
    ("en/routed", "I64", [2, 2], [5, 5, 4, 4]),
    ("en/square", "F64", [3], [9.0, 18.0, 27.0]),
    ("en/sum", "F64", [3], [0.5, -1.0, 2.0]),
    ("en/tokens", "I64", [2], [5, 4]),
]


def bytes_of_format_1(**changes) -> bytes:
    """A file of format 1."""
    tensors = {
        name: torch.tensor(values, dtype=torch.int64 if code == "I64" else torch.float64).reshape(shape)
        for name, code, shape, values in PARTS
    }
    return packed(tensors, {**HEAD, **changes})


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.safetensors"
    path.write_bytes(bytes_of_format_1())
    return path


def test_a_file_of_format_1_is_read(old):
    stats = ActivationStats.load(old)
    assert stats.languages == ["en"]
    assert stats["en"].fires.tolist() == [[1, 2, 3], [4, 0, 2]]
    assert stats.mean("en").tolist() == [0.5 / 9, -1 / 9, 2 / 9]
    assert stats.energy("en").tolist() == [1.0, 2.0, 3.0]
    assert stats["en"].extra("histogram").tolist() == [[1, 8], [2, 7], [3, 6]]


@pytest.mark.parametrize("ask", ["written_mean", "written_energy"])
def test_what_needs_the_written_activation_says_that_format_1_has_none_and_what_to_type(old, ask):
    with pytest.raises(
        OptionError, match=r"statistics of en hold no sums of the written .*format 1.*lape record\.$"
    ) as error:
        getattr(ActivationStats.load(old), ask)("en")
    assert str(error.value).count(". ") == 0  # one sentence


def test_counts_alone_say_that_they_are():
    stats = ActivationStats.from_counts(["en", "fr"], [9, 9], torch.ones(2, 1, 3, dtype=torch.int64))
    with pytest.raises(OptionError, match="counts alone: record that text again with lape record"):
        stats.written_energy("fra_Latn")


def test_format_1_saved_again_is_format_2_with_the_same_content(old, tmp_path):
    stats = ActivationStats.load(old)
    again = stats.save(tmp_path / "new.safetensors")
    assert TensorFile(again, KIND, format=FORMAT).header["format"] == FORMAT == 2
    assert same_tensors(ActivationStats.load(again), stats)


def test_two_of_format_1_merge_and_one_does_not_with_format_2(old, tmp_path):
    other = tmp_path / "other.safetensors"
    corpus = {"en": {"documents": 1, "hash": "other", "tokens": 9}}
    other.write_bytes(bytes_of_format_1(manifest={**HEAD["manifest"], "corpus": corpus}))
    a, b = ActivationStats.load(old), ActivationStats.load(other)
    assert merge([a, b])["en"].fires.tolist() == [[2, 4, 6], [8, 0, 4]]
    tensors = dict(b["en"].tensors) | {name: torch.ones(3, dtype=torch.float64) for name in WRITTEN}
    newer = ActivationStats(b.space, {"en": type(b["en"])(tensors)}, b.manifest)
    with pytest.raises(
        MismatchError, match=r"en: only one of the two holds written, written_square \(files of format 1"
    ):
        a.merge(newer)


@pytest.mark.parametrize("found", [3, 17, "2b"])
def test_a_newer_format_is_refused_saying_what_is_read_and_what_to_do(old, found):
    old.write_bytes(bytes_of_format_1(format=found))
    with pytest.raises(FileError, match=rf"old\.safetensors is of format {found}.*reads formats 1 to 2.*newer"):
        ActivationStats.load(old)


def test_a_recording_says_of_every_tensor_what_it_is(tmp_path):
    texts = {"en": Documents(some_texts(9))}
    stats = record(model_of("llama"), tokenizer_of(), texts, histogram=True, out=tmp_path / "run")
    told = stats.manifest["quantities"]
    assert set(told) == set(stats["en"].tensors)
    assert told["written"] == {"axes": ["neurons"], "dtype": "float64", "merge": "add"}
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["quantities"] == told


def saved(tmp_path, name, tensor, told):
    """A file of format 2 with one more tensor, and what its manifest says of it."""
    stats = made_stats(space=EXPERTS)
    tensors = {f"{k}/{n}": t for k in stats.languages for n, t in stats[k].tensors.items()}
    manifest = {**stats.manifest, "quantities": {name: told} if told else {}}
    header = {"kind": KIND, "format": 2, "languages": stats.languages, "space": EXPERTS.to_json(), "manifest": manifest}
    write_tensors(tmp_path / "a.safetensors", {**tensors, f"fr/{name}": tensor}, header)
    return tmp_path / "a.safetensors"


PER_NEURON = {"axes": ["neurons"], "dtype": "float64", "merge": "add"}


@pytest.mark.parametrize(
    ("tensor", "told", "why"),
    [
        (torch.ones(13, dtype=torch.float64), None, "nothing says what it is"),
        (torch.ones(12, dtype=torch.float64), PER_NEURON, r"expected (neurons), torch.float64"),
        (torch.ones(13, dtype=torch.int64), PER_NEURON, r"expected (neurons), torch.float64"),
        (torch.ones(1, 13, dtype=torch.float64), PER_NEURON, r"expected (neurons), torch.float64"),
        (
            torch.ones(8, 4, dtype=torch.float64),
            {**PER_NEURON, "axes": ["folds", "stretches"]},
            "expected (folds, stretches)",
        ),
    ],
)
def test_a_tensor_that_is_not_what_it_is_said_to_be_is_refused(tmp_path, tensor, told, why):
    with pytest.raises(FileError, match=rf"a\.safetensors is damaged: fr has novel .*{re.escape(why)}"):
        ActivationStats.load(saved(tmp_path, "novel", tensor, told))


def test_a_tensor_of_a_newer_version_is_merged_by_what_its_file_says(tmp_path):
    path = saved(tmp_path, "novel", torch.ones(13, dtype=torch.float64), PER_NEURON)
    stats = ActivationStats.load(path)
    corpus = {k: {"hash": f"{k} other", "tokens": 1} for k in stats.languages}
    other = ActivationStats(stats.space, stats.by_language, {**stats.manifest, "corpus": corpus})
    merged = stats.merge(other)
    assert merged["fr"].extra("novel").tolist() == [2.0] * 13
    assert described(merged.manifest)["novel"] == Quantity("novel", ("neurons",))


@pytest.mark.parametrize(
    "told", [{}, {"axes": ["neurons"]}, {**PER_NEURON, "dtype": "complex"}, {**PER_NEURON, "merge": "max"}, None, 3]
)
def test_a_description_that_cannot_be_read_is_refused(told):
    with pytest.raises(FileError, match="novel"):
        described({"quantities": {"novel": told}})


def test_a_run_that_an_older_version_began_is_refused_and_kept(tmp_path):
    texts = {"en": tmp_path / "en.txt"}
    texts["en"].write_text("\n".join(some_texts(40)), encoding="utf-8")

    def run(**options):
        return record(model_of("llama"), tokenizer_of(), texts, out=tmp_path / "run", document="line", **options)

    def stop(task, done, _total):
        if task.startswith("recording") and done > 60:  # the batch before is kept
            raise KeyboardInterrupt

    shape = {"row_tokens": 16, "batch_tokens": 32, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop, **shape)
    state = tmp_path / "run.partial" / files.STATE
    began = json.loads(state.read_text(encoding="utf-8"))
    assert began.pop("format") == FORMAT
    state.write_text(json.dumps(began), encoding="utf-8")
    kept = {path.name for path in (tmp_path / "run.partial").iterdir()}
    with pytest.raises(FileError, match=r"run\.partial holds a recording of format 1 .*records format 2.*delete"):
        run(**shape)
    assert {path.name for path in (tmp_path / "run.partial").iterdir()} == kept
