"""Contexts against every row read alone and sorted in Python; the whole of `lape examples`, and what it refuses."""

from __future__ import annotations

import json
from functools import cache

import polars as pl
import pytest
import torch

from lape.cli import run
from lape.data.corpus import prepare
from lape.data.texts import Documents
from lape.data.windows import batch, batches
from lape.errors import MismatchError, ModelError, OptionError
from lape.experiments.examples import contexts as module
from lape.experiments.examples import examples
from lape.experiments.examples import run as whole
from lape.experiments.examples.contexts import ExamplesOptions
from lape.model.body import run_batch
from lape.model.find import find
from lape.options import keywords_of
from lape.recording.record import record
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.space import NeuronSpace
from support.brute import activations, hooks_on, lively, model_of, row_of, some_texts, tokenizer_of, width_of
from support.conformance import Written
from support.tiny import LAYERS, tiny, tiny_tokenizer
from support.told import without_steps
from support.zoo.table import KINDS
from support.zoo.written import build

examples = keywords_of(ExamplesOptions)(examples)

pytestmark = pytest.mark.usefixtures("one_thread")

DENSE = ("llama", "gpt2", "phi3", "lfm2")
LISTS = {
    "fr": [*some_texts(9, seed=2, words=(1, 60)), "le chat</s> dort<s> sur le lit"],
    "en": some_texts(12, seed=1, words=(1, 50)),
}
TEXTS = {language: Documents(texts) for language, texts in LISTS.items()}
OPTIONS = {"row_tokens": 32, "batch_tokens": 64, "length": 7, "keep": 5, "effects": 0}


@cache
def mixtral():
    return build("mixtral", KINDS["mixtral"], torch.float64)


def made(kind):
    return mixtral() if kind == "mixtral" else model_of(kind)


def neurons_of(space, seed=0, **kept):
    """Random sets that overlap, some of them in every stretch."""
    generator = torch.Generator().manual_seed(seed)
    sets = {
        k: NeuronSet(space, torch.randperm(len(space), generator=generator)[: len(space) // 9]) for k in ("en", "fr")
    }
    return LanguageNeurons(space, sets, **kept)


def found_in(kind, texts=TEXTS, neurons=None, **options):
    model = made(kind)
    neurons = neurons or neurons_of(find(model).space)
    return examples(model, tokenizer_of(), neurons, texts, **{**OPTIONS, **options})["contexts"]


def row_alone(kind, ids):
    """(tokens, neurons) activations of one row, 0 where a token did not reach an expert."""
    if kind != "mixtral":
        return activations(model_of(kind), kind, ids)
    space = find(mixtral()).space
    a = torch.zeros(len(ids), len(space), dtype=torch.float64)
    for k, (part, rows) in Written(mixtral(), KINDS["mixtral"]).activations(torch.tensor([ids])).items():
        stretch = space.stretches[k]
        a[rows, stretch.start : stretch.stop] = part
    return a


def by_hand(kind, flat, lists=LISTS, length=7, keep=5, row_tokens=32):
    """flat -> its contexts, best first: (value, language, document, start, activations)."""
    windows = []
    for language, texts in lists.items():
        start = 0
        for document, text in enumerate(texts):
            ids, counted = row_of(text, tokenizer_of(), bos=False)
            for at in range(0, len(ids), row_tokens - 1):
                segment, counts = ids[at : at + row_tokens - 1], counted[at : at + row_tokens - 1]
                a = row_alone(kind, [1, *segment])[1:].float()
                a[~counts] = 0
                for w in range(0, len(segment), length):
                    windows.append((language, document, start + at + w, a[w : w + length]))
            start += len(ids)
    result = {}
    for j in flat:
        every = [(float(a[:, j].max()), *where, a[:, j].tolist()) for *where, a in windows]
        result[j] = sorted((one for one in every if one[0] > 0), key=lambda one: -one[0])[:keep]
    return result


def as_dict(frame):
    names = ("value", "language", "document", "start", "activations")
    result = {}
    for row in frame.iter_rows(named=True):
        assert row["rank"] == len(result.setdefault(row["flat"], []))
        result[row["flat"]].append(tuple(row[name] for name in names))
    return result


@pytest.mark.parametrize("kind", [*DENSE, "mixtral"])
def test_contexts_are_those_of_every_row_read_alone(kind):
    union = neurons_of(find(made(kind)).space).union
    expected = by_hand(kind, union)
    found = as_dict(found_in(kind))
    assert found.keys() == {j for j, best in expected.items() if best}
    assert sum(map(len, found.values())) > 100
    for j, best in found.items():
        assert [one[1:4] for one in best] == [one[1:4] for one in expected[j]]
        for (value, *_, a), (wanted, *_, b) in zip(best, expected[j], strict=True):
            assert value == max(a) == pytest.approx(wanted, rel=1e-5)
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    assert hooks_on(made(kind)) == 0


def test_the_table_has_these_columns_and_the_pieces_are_the_text():
    found = found_in("llama")
    assert found.schema == module.CONTEXTS
    assert list(found.schema) == ["flat", "rank", "value", "language", "document", "start", "pieces", "activations"]
    assert found.select((pl.col("pieces").list.len() == pl.col("activations").list.len()).all()).item()
    for row in found.iter_rows(named=True):
        ids = tokenizer_of()(LISTS[row["language"]][row["document"]], add_special_tokens=False)["input_ids"]
        before = sum(
            len(tokenizer_of()(text, add_special_tokens=False)["input_ids"])
            for text in LISTS[row["language"]][: row["document"]]
        )
        at = row["start"] - before
        text = tokenizer_of().decode(ids[at : at + len(row["pieces"])], clean_up_tokenization_spaces=False)
        assert "".join(row["pieces"]) == text or "�" in text


@pytest.mark.parametrize("kind", [*DENSE, "mixtral"])
@pytest.mark.parametrize("options", [{"batch_tokens": 32}, {"batch_tokens": 4096}, {"one_per_row": True}], ids=str)
def test_contexts_do_not_depend_on_batches_or_on_what_shares_a_row(kind, options):
    first, other = found_in(kind), found_in(kind, **options)
    apart = ("value", "activations")
    assert first.drop(apart).equals(other.drop(apart))
    assert first["value"].to_list() == pytest.approx(other["value"].to_list(), rel=1e-5)


@pytest.mark.parametrize("keep", [2, 6])
def test_equal_values_are_kept_in_the_order_of_the_text(keep):
    """Documents begin alike, and are read the longest first, which is not their order in the text."""
    texts = ["the cat", "the cat sat on the mat", "the cat sat"]
    size = len(tokenizer_of()("the cat", add_special_tokens=False)["input_ids"])
    lists = {"fr": texts, "en": texts[1:]}
    sources = {language: Documents(one) for language, one in lists.items()}
    found = found_in("lfm2", sources, keep=keep, length=size, batch_tokens=32)
    order = [("fr", 0), ("fr", 1), ("fr", 2), ("en", 0), ("en", 1)]
    tied = 0
    for part in found.partition_by("flat"):
        top = part.filter(pl.col("value") == part["value"][0])
        if "".join(top["pieces"][0]) == "the cat":
            assert top.select("language", "document").rows() == order[:keep]
            tied += 1
    assert tied > 3


def test_what_is_kept_has_one_size_however_long_the_text_is():
    model, options = model_of("llama"), ExamplesOptions(row_tokens=32, batch_tokens=64, length=8, keep=3)
    union = neurons_of(find(model).space).union

    def sizes(count):
        corpus = prepare("en", Documents(some_texts(count, words=(5, 30))), tokenizer_of(), options)
        watcher = module.Watcher(model, union, options)
        every = batches(corpus, options, packs=True)
        with torch.inference_mode(), watcher.attached():
            for some in every:
                one = batch(corpus, some)
                watcher.expect(one, some, 0)
                run_batch(model, one)
        tensors = [x for best in watcher.best.values() for x in (best.values, best.numbers, best.activations)]
        return len(every), sum(x.untyped_storage().nbytes() for x in tensors)

    (few, small), (many, large) = sizes(2), sizes(120)
    assert few < many / 20
    assert small == large == len(union) * 3 * (4 + 8 + 4 * 8)
    assert found_in("llama", keep=3).group_by("flat").len()["len"].max() == 3


def test_an_activation_that_is_no_number_is_refused():
    model = lively("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight[:] = torch.nan
    find(model_of("llama"))
    with pytest.raises(ModelError):
        examples(model, tokenizer_of(), neurons_of(NeuronSpace.dense(LAYERS, 44)), TEXTS, **OPTIONS)


def test_infinite_activations_are_refused_before_they_are_ranked():
    best = module.Best(2, 3, 4, torch.zeros(1))
    a = torch.randn(5, 2, 4)
    a[1, 0, 2], a[2, 1, 3] = torch.nan, torch.inf
    best.take(torch.arange(5), a)
    assert best.values[0].tolist() == [torch.inf, torch.inf]
    watcher = module.Watcher(
        model_of("llama"), NeuronSet(NeuronSpace.dense(LAYERS, 44), torch.tensor([3, 4])), ExamplesOptions()
    )
    watcher.best[0] = best
    with pytest.raises(ModelError, match="infinite or not numbers"):
        watcher.result()


# --- what is refused ---


def test_neurons_of_another_model_and_empty_sets_are_refused():
    with pytest.raises(MismatchError, match="belong to a model"):
        found_in("llama", neurons=neurons_of(NeuronSpace.dense(LAYERS, 45)))
    space = NeuronSpace.dense(LAYERS, width_of("llama"))
    none = LanguageNeurons(space, {"en": NeuronSet(space, torch.empty(0))})
    with pytest.raises(OptionError, match="None of en has any neurons"):
        found_in("llama", neurons=none)


def test_recorded_text_is_refused_unless_it_is_allowed():
    stats = record(model_of("llama"), tokenizer_of(), {"en": TEXTS["en"]}, row_tokens=32)
    neurons = neurons_of(stats.space, fingerprints=stats["en"].fingerprints)
    with pytest.raises(MismatchError, match="allow_recorded=True"):
        found_in("llama", neurons=neurons)
    assert len(found_in("llama", neurons=neurons, allow_recorded=True))


@pytest.mark.parametrize(
    ("name", "value"), [("keep", 21), ("keep", 0), ("length", 257), ("effects", -1), ("effect_tokens", 0)]
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(OptionError, match=name):
        ExamplesOptions(**{name: value})


# --- what is left out ---


def test_without_a_head_that_can_be_read_the_reason_is_given(monkeypatch):
    def none(_model):
        raise ModelError("it has no head")

    monkeypatch.setattr(whole, "find_head", none)
    neurons = neurons_of(NeuronSpace.dense(LAYERS, 44))
    found = examples(model_of("llama"), tokenizer_of(), neurons, TEXTS, **OPTIONS)
    assert len(found["contexts"])
    assert (len(found["words"]), len(found["effects"])) == (0, 0)
    assert found.notes == ("words: it has no head", "effects: it has no head")


# --- the command line ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    tiny("llama", torch.float32).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "en.txt").write_text("the cat sat on the mat and the dog ate the rat\n" * 12)
    (folder / "fr.txt").write_text("le chat dort sur le lit et le chien mange le rat\n" * 12)
    (folder / "en2.txt").write_text("\n".join(some_texts(30, 5)))
    (folder / "fr2.txt").write_text("\n".join(some_texts(30, 6)))
    texts = ["--text", f"en={folder}/en.txt", "--text", f"fr={folder}/fr.txt"]
    assert run(["record", str(folder / "model"), *texts, "--out", str(folder / "run"), "--device", "cpu"]) == 0
    assert run(["identify", str(folder / "run"), "--rate", "0.2", "--filter", "0.7", "--bar", "0.7"]) == 0
    return folder


def command(folder, *more, text="2", effects=2):
    texts = [word for k in ("en", "fr") for word in ("--text", f"{k}={folder}/{k}{text}.txt")]
    small = ["--row-tokens", "32", "--effects", str(effects), "--document", "line", "--device", "cpu"]
    return ["examples", str(folder / "model"), str(folder / "run"), *texts, *small, *more]


def test_the_command_writes_its_folder_whole(folder, tmp_path, capsys):
    assert run(command(folder, "--out", str(tmp_path / "x"))) == 0
    said = capsys.readouterr().out
    assert "max-activating examples of" in said
    assert f"Next: lape report {tmp_path / 'x'}" in said.replace("\n", "")
    names = {"contexts.parquet", "words.parquet", "effects.parquet", "about.json", "run.json"}
    assert {path.name for path in (tmp_path / "x").iterdir()} == names
    assert not (tmp_path / "x.partial").exists()
    about = json.loads((tmp_path / "x" / "about.json").read_text())
    assert about["options"]["length"] == 32
    assert set(about["texts"]) == {"en", "fr"}
    assert len(about["model"]["checksum"]) == 64
    neurons = LanguageNeurons.load(folder / "run")
    effects = pl.read_parquet(tmp_path / "x" / "effects.parquet")
    for language in ("en", "fr"):
        own = effects.filter(pl.col("language") == language, pl.col("kind") == "own")
        lowest = neurons.profile.spread(neurons.scores)[neurons[language].flat].sort(stable=True)
        assert own["flat"].to_list() == neurons[language].flat[lowest.indices[:2]].tolist()
        assert own["entropy"].to_list() == pytest.approx(lowest.values[:2].tolist())
        assert own["low"].null_count() == 0
    contexts = pl.read_parquet(tmp_path / "x" / "contexts.parquet")
    assert set(contexts["flat"]) <= set(neurons.union)


def test_a_stopped_command_goes_on_where_it_was(folder, tmp_path, capsys, monkeypatch):
    from lape.measure.ablation import Ablations

    assert run(command(folder, "--out", str(tmp_path / "whole"))) == 0
    off, calls = Ablations.off, []

    def stopping(self, neurons, language):
        calls.append(language)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return off(self, neurons, language)

    monkeypatch.setattr(Ablations, "off", stopping)
    assert run(command(folder, "--out", str(tmp_path / "x"))) == 130
    assert "same command goes on" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr(Ablations, "off", off)
    monkeypatch.setattr(whole, "contexts", None)  # is not called again
    monkeypatch.setattr(whole, "words", None)
    assert run(command(folder, "--out", str(tmp_path / "x"), "--length", "9")) == 2
    assert "in which options was" in capsys.readouterr().err.replace("\n", " ")
    assert run(command(folder, "--out", str(tmp_path / "x"))) == 0
    for name in ("contexts", "words", "effects"):
        a, b = (pl.read_parquet(tmp_path / k / f"{name}.parquet") for k in ("x", "whole"))
        assert a.equals(b)


def refused(capsys, place, arguments, *words):
    before = sorted(place.rglob("*"))
    capsys.readouterr()
    assert run(arguments) == 2
    said = without_steps(capsys.readouterr().err).replace("\n", " ")
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert all(word in said for word in words), said
    assert sorted(place.rglob("*")) == before


def test_what_a_user_can_get_wrong(folder, tmp_path, capsys):
    x = ["--out", str(tmp_path / "x")]
    refused(capsys, tmp_path, command(folder, *x, text=""), "recorded", "--allow-recorded")
    refused(
        capsys, tmp_path, ["examples", str(folder / "model"), str(folder / "run"), *x], "No text was given", "--text"
    )
    refused(capsys, tmp_path, command(folder, *x, "--keep", "50"), "keep is 50", "1 to 20")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.json").write_text("{}")
    refused(capsys, tmp_path, command(folder, *x), str(tmp_path / "x"), "--overwrite")
    assert run(command(folder, *x, "--overwrite", effects=0)) == 0
    assert "effects: none were asked for" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    refused(
        capsys,
        tmp_path,
        ["examples", str(folder / "model"), str(tmp_path / "empty"), "--text", f"en={folder}/en2.txt"],
        "lape identify",
    )
