"""What makes two models the same is what they compute: whatever changes it is refused, or said where it can't be shown."""

from __future__ import annotations

import copy
import os
import shutil
import warnings

import pytest
import torch

import lape
from lape.data.texts import Documents
from lape.edit.edit import Off, edited
from lape.edit.steer import steer
from lape.errors import LapeWarning, MismatchError, ModelError
from lape.experiments.perplexity.run import perplexity
from lape.model.find import find
from lape.model.identity import check_made_with, checksum, describe
from lape.model.load import load
from lape.model.locate import located
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.same import compared, place_of
from lape.values.stats import ActivationStats
from support.brute import lively, some_texts, tokenizer_of
from support.tiny import tiny, tiny_tokenizer, word_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = {"en": Documents(some_texts(6)), "fr": Documents(some_texts(9)[6:])}
OTHER = {
    "en": Documents(["of the people, by the people"] * 3),
    "fr": Documents(["tous les hommes naissent libres"] * 3),
}


def with_lora(model):
    peft = pytest.importorskip("peft", reason="needs peft")
    LoraConfig, get_peft_model = peft.LoraConfig, peft.get_peft_model
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["gate_proj", "q_proj"])).eval()
    wrapped.add_adapter("b", LoraConfig(r=4, target_modules=["gate_proj", "q_proj"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    return wrapped


def found_in(model, tokenizer, **options):
    stats = lape.record(model, tokenizer, TEXTS, **options)
    return stats, lape.identify(stats, "difference", per_language=6, reliability=False)


def config(name, value):
    def change(model):
        part = model.config
        *outer, last = name.split(".")
        for one in outer:
            part = getattr(part, one)
        part[last] = value if isinstance(part, dict) else setattr(part, last, value)

    return change


def rope(model):
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_theta": 500.0}


def weight(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] += 1e-3


def hidden_write(model):
    model.model.layers[1].mlp.up_proj.weight.data.mul_(1.01)


def buffer(model):
    model.model.rotary_emb.inv_freq.mul_(0.3)


def nothing(hidden_states, **_):
    return torch.zeros_like(hidden_states), None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: setattr(model.config, "hidden_act", "relu"), "hidden_act silu and relu"),
        (lambda model: setattr(model.config, "rms_norm_eps", 1e-2), "rms_norm_eps"),
        (rope, "rope_theta 10000.0 and 500.0"),
        (weight, "checksum"),
        (hidden_write, "checksum"),
        (buffer, "hidden states"),
        (lambda model: setattr(model.model.layers[1].mlp, "act_fn", torch.nn.ReLU()), "hidden states"),
        (lambda model: setattr(model.model.layers[1].input_layernorm, "variance_epsilon", 0.5), "hidden states"),
        (lambda model: setattr(model.model.layers[1].self_attn, "forward", nothing), "hidden states"),
    ],
    ids=[
        *("activation", "norm", "rope", "one weight", "weights through .data", "buffer that is not saved"),
        *("module", "number of a module", "forward of a module"),
    ],
)
def test_a_changed_model_is_another_in_every_call_of_the_library(change, said):
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    stats, neurons = found_in(model, tokenizer)
    check_made_with(model, tokenizer, bos="auto", statistics=stats, neurons=neurons)
    change(model)
    calls = (
        lambda: check_made_with(model, statistics=stats),
        lambda: perplexity(model, tokenizer, neurons, OTHER, draws=1, resamples=10),
        lambda: edited(model, Off(neurons["en"])).__enter__(),
        lambda: steer(model, neurons, stats=stats, source="en", to="fr").__enter__(),
    )
    for call in calls:
        with pytest.raises(MismatchError, match=said):
            call()


def test_hooks_that_others_put_count_where_text_is_measured_and_are_not_run_to_edit():
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    stats, neurons = found_in(model, tokenizer)
    seen = []
    watching = model.model.layers[0].register_forward_hook(lambda *_: seen.append(1))
    with edited(model, Off(neurons["en"])):
        assert not seen
    watching.remove()
    model.model.layers[1].self_attn.register_forward_hook(lambda _module, _args, out: (out[0] * 0, *out[1:]))
    with pytest.raises(MismatchError, match="hidden states"):
        perplexity(model, tokenizer, neurons, OTHER, draws=1, resamples=10)
    with pytest.raises(MismatchError, match="hidden states"):
        stats.merge(lape.record(model, tokenizer, OTHER))


def test_neurons_of_another_model_are_not_exported_either(tmp_path):
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    _, neurons = found_in(model, tokenizer)
    weight(model)
    with pytest.raises(MismatchError, match="checksum"):
        lape.export(model, Off(neurons["en"]), tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()


def test_sets_say_their_model_through_all_arithmetic():
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    _, neurons = found_in(model, tokenizer)
    a, b = neurons["en"], neurons["fr"]
    for one in (
        a | b,
        a & b,
        a - b,
        NeuronSet(a.space, torch.arange(3)) | a,
        neurons.union,
        neurons.only("en"),
        a.in_layers([0]),
    ):
        assert one.manifest["model"]["checksum"] == checksum(model)
    assert NeuronSet(a.space, a.flat) == a


@pytest.mark.parametrize("how", ["off", "another", "stronger"])
def test_adapters_that_act_are_part_of_the_model(how):
    model, tokenizer = with_lora(lively("llama", torch.float32)), tokenizer_of()
    stats, _ = found_in(model, tokenizer)
    check_made_with(model, statistics=stats)
    if how == "off":
        model.base_model.disable_adapter_layers()
    elif how == "another":
        model.set_adapter("b")
    else:
        model.base_model.model.model.layers[0].mlp.gate_proj.scaling["default"] = 3.0
    with pytest.raises(MismatchError, match=r"adapters default .* and"):
        check_made_with(model, statistics=stats)
    changed = lape.record(model, tokenizer, OTHER)
    with pytest.raises(MismatchError, match="adapters"):
        stats.merge(changed)


def test_a_tokenizer_that_splits_otherwise_is_another_and_one_that_only_is_written_otherwise_is_told():
    model, tokenizer = lively("llama", torch.float32), tiny_tokenizer()
    stats, neurons = found_in(model, tokenizer)
    words = word_tokenizer(["<pad>", "<s>", "</s>", "<unk>", "the", "cat", "chat", "le"])
    with pytest.raises(MismatchError, match="tokenizers"):
        perplexity(model, words, neurons, OTHER, draws=1, resamples=10)
    other = tiny_tokenizer()
    other.add_tokens(["zzyzx"])
    with pytest.warns(LapeWarning, match="split a text of many scripts alike"):
        check_made_with(model, other, statistics=stats)


def test_rows_that_begin_otherwise_are_refused_where_text_is_measured():
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    _, neurons = found_in(model, tokenizer)
    with pytest.raises(MismatchError, match=r"BOS 1 and with no BOS \(bos\)"):
        perplexity(model, tokenizer, neurons, OTHER, draws=1, resamples=10, bos="never")
    perplexity(model, tokenizer, neurons, OTHER, draws=1, resamples=10, bos="always")  # which is what auto does here


def test_another_number_format_is_compared_by_what_can_be(saved, tmp_path):
    plain, tokenizer = load(saved, device="cpu")
    stats, _ = found_in(plain, tokenizer)
    half, _ = load(saved, device="cpu", dtype="bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("error", LapeWarning)
        check_made_with(half, tokenizer, statistics=stats)  # the same files
    with pytest.warns(LapeWarning, match=r"weights in float32 and in bfloat16 \(hidden states differ by 0\.0"):
        check_made_with(lively("llama", torch.float32).to(torch.bfloat16), statistics=stats)  # nobody knows from where
    with pytest.raises(MismatchError, match="hidden states that differ by 1"):
        check_made_with(tiny("llama", torch.bfloat16, seed=5), statistics=stats)
    with torch.no_grad():
        half.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    with pytest.warns(LapeWarning, match="hidden states differ"):
        check_made_with(half, statistics=stats)  # no longer what the files hold
    with pytest.raises(MismatchError, match="float32 and in bfloat16"):
        stats.merge(lape.record(half, tokenizer, OTHER))


def test_a_checksum_is_kept_until_something_changes(monkeypatch):
    from lape.model import identity

    model, read = lively("llama", torch.float32), []
    whole = identity._checksum
    monkeypatch.setattr(identity, "_checksum", lambda inner: read.append(1) or whole(inner))
    first = checksum(model)
    assert checksum(model) == first
    assert len(read) == 1
    weight(model)
    assert checksum(model) != first
    assert checksum(copy.deepcopy(model)) == checksum(model)


# --- names ---


def test_a_run_says_where_its_model_lies_so_that_it_is_found_from_anywhere(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(saved.parent)
    told = describe(*load("llama", device="cpu"))["model"]
    assert (told["id"], told["path"]) == ("llama", str(saved))
    monkeypatch.chdir(tmp_path)
    assert checksum(load(place_of(told), device="cpu")[0]) == told["checksum"]


def test_a_stopped_recording_goes_on_whatever_the_model_s_path_is_called(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    here, there = (load(folder, device="cpu") for folder in (saved, tmp_path / "copy"))
    texts = {"en": Documents(some_texts(40)), "fr": Documents(some_texts(80)[40:])}
    expected = lape.record(*here, texts)

    def stop(task, done, _total):
        if task == "recording fr":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lape.record(*here, texts, out=tmp_path / "run", progress=stop)
    assert (tmp_path / "run.partial").exists()
    went_on = lape.record(*there, texts, out=tmp_path / "run")
    assert torch.equal(went_on["fr"].fires, expected["fr"].fires)


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "../a/model", "~/model", "a/b/c", "model.gguf"])
def test_a_missing_folder_is_never_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_a, **_k: pytest.fail("it was asked"))
    with pytest.raises(ModelError, match="There is no file or folder"):
        located(name, None)


def test_a_name_with_nothing_behind_it_is_asked_for_once(monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    asked = []

    def model_info(_self, name, **_):
        asked.append(name)
        raise RepositoryNotFoundError("404", response=type("R", (), {"headers": {}, "request": None})())

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    with pytest.raises(ModelError, match="no model of that name"):
        load("nobody/tiny", device="cpu")
    assert asked == ["nobody/tiny"]


def test_manifests_of_older_files_decide_by_what_they_say():
    told = describe(lively("llama", torch.float32), tokenizer_of(), "auto")
    older = {
        "model": {k: told["model"][k] for k in ("id", "revision", "checksum", "dtype")} | {"config": "0" * 64},
        "tokenizer": {"hash": told["tokenizer"]["hash"]},
    }
    assert not compared(older, told).differ
    assert not compared(older, told).unsure
    assert compared(older, told).older
    assert not compared(older, older).older
    stats = ActivationStats(find(lively("llama", torch.float32)).space, {}, older)
    with pytest.warns(LapeWarning, match="older version of lape"):
        check_made_with(lively("llama", torch.float32), statistics=stats)
    assert compared({"model": {**older["model"], "checksum": "0" * 64}}, told).differ


def test_neurons_from_a_file_say_their_model(tmp_path):
    model, tokenizer = lively("llama", torch.float32), tokenizer_of()
    _, neurons = found_in(model, tokenizer)
    neurons.save(tmp_path / "n.safetensors")
    read = LanguageNeurons.load(tmp_path / "n.safetensors")
    with edited(model, Off(read["en"])):
        pass
    weight(model)
    with pytest.raises(MismatchError), edited(model, Off(read["en"])):
        pass
    assert os.listdir(tmp_path) == ["n.safetensors"]
