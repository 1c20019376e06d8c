"""Every observer keeps its word: it records what it declares, that merges as it says, and is refused where it says so."""

from __future__ import annotations

import copy
import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from lape.data.texts import Documents
from lape.errors import MismatchError, OptionError
from lape.recording import observers
from lape.recording import record as recording
from lape.recording.engine import RecordOptions
from lape.recording.engines import ray
from lape.recording.observers import OBSERVERS
from lape.recording.observers.observer import ALSO, Observer, Way
from lape.recording.record import record
from lape.values.quantity import Quantity, described
from lape.values.stats import ActivationStats, merge
from support.brute import assert_near, lively, some_texts, tokenizer_of

pytestmark = pytest.mark.usefixtures("one_thread")
LINES = {"en": some_texts(132, 0, words=(1, 4)), "fr": some_texts(131, 1, words=(1, 4))}
SHAPE = {"row_tokens": 32, "batch_tokens": 64}
EACH = pytest.mark.parametrize("observer", OBSERVERS, ids=lambda one: one.name)
WAYS = pytest.mark.parametrize("way", get_args(Way))


@pytest.fixture(scope="module")
def model() -> Any:
    return lively("llama", torch.float32)


@pytest.fixture(scope="module")
def tuned(model) -> dict[str, Any]:
    """What a language's tuned checkpoint may be, for the observer that compares them."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    return {"en": other, "fr": other}


def options_for(observer: Observer) -> dict[str, Any]:
    """What asks for it: a name in `also`, a number, or yes."""
    if observer.option == ALSO:
        return {ALSO: observer.name}
    if observer.option in (None, "tuned"):
        return {}
    number = int in get_args(get_type_hints(RecordOptions, include_extras=False)[observer.option])
    return {observer.option: 30 if number else True}


@pytest.fixture
def ask(model, tuned):
    """Records texts with one observer asked for."""

    def run(observer: Observer, texts=LINES, **more: Any) -> ActivationStats:
        given = {"tuned": {k: tuned[k] for k in texts}} if observer.option == "tuned" else {}
        sources = {language: Documents(lines) for language, lines in texts.items()}
        return record(model, tokenizer_of(), sources, **SHAPE, **options_for(observer), **given, **more)

    return run


def lengths(stats: ActivationStats) -> dict[str, int]:
    return {"folds": stats.folds, "stretches": len(stats.space.stretches), "neurons": len(stats.space)}


def assert_like(a: torch.Tensor, b: torch.Tensor, name: str) -> None:
    """Bits where numbers are whole, 1e-10 where they are sums, and rounding where they are halves."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape), name
    if a.is_floating_point():
        assert_near(a.double(), b.double(), 1e-3 if a.dtype == torch.float16 else 1e-10)
    else:
        assert torch.equal(a, b), name


def test_each_file_of_the_package_is_an_observer_of_that_name_and_none_is_twice():
    folder = Path(observers.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "observer", "sums"}
    assert {one.name for one in OBSERVERS} == files
    assert all(import_module(f"{observers.__name__}.{one.name}").OBSERVER is one for one in OBSERVERS)
    tensors = [tensor.name for one in OBSERVERS for tensor in one.tensors]
    assert len(set(tensors)) == len(tensors)


@EACH
def test_its_record_is_whole(observer):
    assert observer.about.endswith(".")
    assert observer.watch or observer.after
    fields = {one.name for one in dataclasses.fields(RecordOptions)} | {"tuned", None}
    assert observer.option in fields
    if observer.option == ALSO:
        assert observer.tensors[0].name == observer.name  # what statistics that lack it say to type
    for tensor in observer.tensors:
        assert Quantity.from_json(tensor.name, tensor.to_json()) == tensor
        assert described({}).get(tensor.name, tensor) == tensor  # as files of format 1 held it


@EACH
def test_what_is_recorded_is_exactly_what_is_declared_and_nothing_else_changes(observer, ask, model):
    stats = ask(observer)
    plain = record(model, tokenizer_of(), {k: Documents(lines) for k, lines in LINES.items()}, **SHAPE)
    always = {tensor.name for one in OBSERVERS if one.option is None for tensor in one.tensors}
    declared = {tensor.name: tensor for tensor in observer.tensors}
    for language in LINES:
        one, usual = stats[language].tensors, plain[language].tensors
        assert always <= set(usual)
        assert set(one) == set(usual) | set(declared)
        assert all(torch.equal(one[name], tensor) for name, tensor in usual.items())
        assert all(tensor.fits(one[name], lengths(stats)) for name, tensor in declared.items())
        assert all(bool(one[name].any()) for name in declared)
    assert {name: described(stats.manifest)[name] for name in declared} == declared
    assert set(stats.manifest["quantities"]) == set(one)


@EACH
def test_parts_merge_to_what_all_text_at_once_gives(observer, ask):
    """Shards of the same batches where it can be recorded in them; else texts of 64 documents and more."""
    whole = ask(observer)
    if "shards" in observer.refused:
        halves = slice(66), slice(66, None)
        parts = [ask(observer, {k: lines[half] for k, lines in LINES.items()}) for half in halves]
    else:
        parts = [ask(observer, shard=f"{k}/3") for k in (1, 2, 3)]
    merged = merge(parts)
    for language in LINES:
        for tensor in observer.tensors:
            assert_like(merged[language].tensors[tensor.name], whole[language].tensors[tensor.name], tensor.name)
    assert merged.manifest["quantities"] == whole.manifest["quantities"]


@EACH
def test_with_it_and_without_it_do_not_merge(observer, ask):
    stats = ask(observer, {"en": LINES["en"][:66]})
    names = {tensor.name for tensor in observer.tensors}
    other = ask(observer, {"en": LINES["en"][66:]})
    tensors = {name: tensor for name, tensor in other["en"].tensors.items() if name not in names}
    other = dataclasses.replace(other, by_language={"en": dataclasses.replace(other["en"], tensors=tensors)})
    with pytest.raises(MismatchError, match=f"en: only one of the two holds {', '.join(sorted(names))}"):
        stats.merge(other)
    with pytest.raises(OptionError, match="lape record"):
        other["en"].extra(observer.tensors[0].name)


@EACH
def test_a_file_gives_back_what_was_recorded(observer, ask, tmp_path):
    stats = ask(observer)
    loaded = ActivationStats.load(stats.save(tmp_path / "a.safetensors"))
    again = ActivationStats.load(loaded.save(tmp_path / "b.safetensors"))
    for language in LINES:
        for tensor in observer.tensors:
            for other in (loaded, again):
                assert torch.equal(other[language].tensors[tensor.name], stats[language].tensors[tensor.name])
    assert loaded.manifest["quantities"] == stats.manifest["quantities"]
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@EACH
def test_a_stopped_run_goes_on_to_the_same_bits(observer, ask, tmp_path):
    def stop(task, done, _total):
        if task == "recording fr" and done > 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(observer, out=tmp_path / "run", checkpoint_seconds=0, progress=stop)
    resumed, whole = ask(observer, out=tmp_path / "run", checkpoint_seconds=0), ask(observer)
    for language in LINES:
        assert set(resumed[language].tensors) == set(whole[language].tensors)
        assert all(torch.equal(resumed[language].tensors[n], t) for n, t in whole[language].tensors.items())


# --- where it is refused ---


@EACH
@WAYS
def test_it_is_refused_where_its_record_says_so_and_nowhere_else(observer, way):
    if observer.option is None:
        assert not observer.refused, "what is always recorded is recorded in every way"
    options, given = RecordOptions(**options_for(observer)), observer.option == "tuned"
    if way not in observer.refused:
        observers.refuse(way, options, tuned=given)
        return
    with pytest.raises(OptionError) as error:
        observers.refuse(way, options, tuned=given)
    assert str(error.value) == f"{observer.asking} {observer.refused[way]}"
    assert "Leave it out" in str(error.value)


@EACH
def test_engines_ask_its_record(observer, model, tuned, tmp_path, monkeypatch):
    given, options = ({"tuned": tuned} if observer.option == "tuned" else {}), options_for(observer)
    texts = {"en": Documents(["the cat"]), "fr": Documents(["le chat"])}
    if "shards" in observer.refused:
        with pytest.raises(OptionError, match=observer.refused["shards"]):
            record(model, tokenizer_of(), texts, shard="1/2", **options)
        record(model, tokenizer_of(), texts, shard="1/1", **options)
    if "ray" in observer.refused and not given:  # the command line refuses what ray.record does not take
        with pytest.raises(OptionError, match=observer.refused["ray"]):
            ray.record("no model is needed", texts, RecordOptions(**options), out=tmp_path / "run")
    if "parallel" in observer.refused:
        monkeypatch.setattr(recording, "is_shared_out", lambda _: True)
        monkeypatch.setattr(recording, "follows", lambda _: False)
        with pytest.raises(OptionError, match=observer.refused["parallel"]):
            record(model, tokenizer_of(), texts, **options, **given)


def test_a_name_that_no_observer_has_is_refused(model):
    with pytest.raises(OptionError, match=r"also is 'nothing'\. "):
        record(model, tokenizer_of(), {"en": Documents(["the cat"])}, also="nothing")


# --- one more ---


def test_one_more_is_recorded_merged_and_kept_by_its_record_alone(model, tmp_path, monkeypatch):
    """As a new file of the package would be: sums of the fourth power of activations."""
    from lape.model.hooks import change
    from lape.recording.observers.sums import Sums

    fourth = Observer(
        "fourth",
        "The sum of the fourth power of the activation.",
        (Quantity("fourth", ("neurons",)),),
        watch=lambda setting: Sums(setting, ("fourth",), lambda x: x.pow(4).sum(0)[None], change),
    )
    monkeypatch.setattr(observers, "OBSERVERS", (*OBSERVERS, fourth))
    texts = {k: Documents(lines) for k, lines in LINES.items()}
    plain = record(model, tokenizer_of(), texts, **SHAPE)
    assert "fourth" not in plain["en"].tensors
    with pytest.raises(OptionError, match="lape record --also fourth"):
        plain["en"].extra("fourth")
    whole = record(model, tokenizer_of(), texts, also="fourth", **SHAPE)
    parts = [record(model, tokenizer_of(), texts, also="fourth", shard=f"{k}/2", **SHAPE) for k in (1, 2)]
    paths = [part.save(tmp_path / f"{k}.safetensors") for k, part in enumerate(parts)]
    monkeypatch.setattr(observers, "OBSERVERS", OBSERVERS)  # who merges need not know it
    merged = merge(ActivationStats.load(path) for path in paths)
    for language in LINES:
        assert_near(merged[language].extra("fourth"), whole[language].extra("fourth"), 1e-10)
        assert bool((whole[language].extra("fourth") > 0).all())
