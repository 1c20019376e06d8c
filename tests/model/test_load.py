"""Loading: any saved folder, never foreign code; a checksum that notices one bit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.errors import ModelError, OptionError
from lape.model.find import find
from lape.model.identity import checksum, describe
from lape.model.load import load
from lape.model.skeleton import skeleton
from lape.model.tokenizer import tokenizer_hash
from lape.values.same import Verdict, compared, lasting
from support.brute import lively, logits_of, tokenizer_of
from support.tiny import tiny, tiny_tokenizer

IDS = torch.tensor([[1, 20, 30, 40, 50]])


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


# --- load ---


def test_a_saved_folder_loads_as_it_was_saved(saved):
    model, tokenizer = load(saved, device="cpu")
    assert torch.equal(logits_of(model, IDS), logits_of(lively("llama", torch.float32), IDS))
    assert tokenizer("the cat")["input_ids"] == tokenizer_of()("the cat")["input_ids"]
    assert not model.training


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64"])
def test_dtype_is_the_number_format_of_the_weights(saved, name):
    assert load(saved, dtype=name, device="cpu")[0].dtype == getattr(torch, name)


def test_by_default_weights_stay_as_stored(saved, tmp_path):
    lively("llama", torch.bfloat16).save_pretrained(tmp_path)
    tokenizer_of().save_pretrained(tmp_path)
    assert load(tmp_path, device="cpu")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"dtype": "int4"}, {"device": "cuda:99"}, {"device": "toaster"}])
def test_an_option_that_makes_no_sense_is_refused_with_what_would(saved, options):
    with pytest.raises(OptionError, match="Expected"):
        load(saved, **options)


@pytest.mark.parametrize("name", ["nowhere/to-be-found", "./no such folder", "a/b/c", ""])
def test_a_model_that_is_nowhere_is_refused_with_what_could_be_given(name):
    with pytest.raises(ModelError, match="Expected"):
        load(name)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_file_missing_is_refused_with_what_belongs_there(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(ModelError, match="safetensors weights and a tokenizer"):
        load(copy, device="cpu")


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_a_model_error(copy, damaged):
    data = (copy / damaged).read_bytes()
    (copy / damaged).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="could not be loaded"):
        load(copy, device="cpu")


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_weights_of_another_shape_are_a_model_error(copy):
    change_json(copy / "config.json", intermediate_size=40)
    with pytest.raises(ModelError, match="could not be loaded"):
        load(copy, device="cpu")


def test_weights_that_are_missing_are_a_model_error_not_random_numbers(copy):
    change_json(copy / "config.json", num_hidden_layers=4)
    with pytest.raises(ModelError):
        load(copy, device="cpu")


def test_an_unknown_architecture_is_a_model_error(copy):
    change_json(copy / "config.json", model_type="unheard-of")
    with pytest.raises(ModelError, match="unheard-of"):
        load(copy, device="cpu")


def test_a_model_that_writes_no_text_is_a_model_error(copy):
    change_json(copy / "config.json", model_type="vit", architectures=["ViTModel"])
    with pytest.raises(ModelError):
        load(copy, device="cpu")


CODE = "open({marker!r}, 'w').close()\nfrom transformers import {base}\nclass Foreign({base}): pass\n"


@pytest.mark.parametrize(
    ("file", "key", "base"),
    [
        ("config.json", {"AutoConfig": "foreign.Foreign"}, "LlamaConfig"),
        ("config.json", {"AutoModelForCausalLM": "foreign.Foreign"}, "LlamaForCausalLM"),
        ("tokenizer_config.json", {"AutoTokenizer": ["foreign.Foreign", None]}, "PreTrainedTokenizerFast"),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "foreign.Foreign"]}, "PreTrainedTokenizerFast"),
    ],
)
def test_code_that_comes_with_a_model_is_never_run_whatever_is_typed(copy, monkeypatch, tmp_path, file, key, base):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = tmp_path / "code was run"
    (copy / "foreign.py").write_text(CODE.format(marker=str(marker), base=base))
    changes = {"auto_map": key}
    if file == "config.json" and "AutoConfig" in key:
        changes["model_type"] = "foreign"
    if file != "config.json":
        changes["tokenizer_class"] = "Foreign"
    change_json(copy / file, **changes)
    try:
        load(copy, device="cpu")
    except ModelError:
        pass
    finally:
        assert not marker.exists()


# --- which model it is ---


def integers(parameter):
    return parameter.detach().view(-1).view({2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()])


MODEL = tiny("gpt2", torch.float32)
PARAMETERS = list(MODEL.parameters())
CHECKSUM = checksum(MODEL)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(PARAMETERS) - 1), st.floats(0, 1, exclude_max=True), st.integers(0, 31))
def test_one_changed_bit_anywhere_changes_the_checksum(which, where, bit):
    numbers = integers(PARAMETERS[which])
    at = int(where * len(numbers))
    mask = -(2**31) if bit == 31 else 1 << bit
    numbers[at] ^= mask
    changed = checksum(MODEL)
    numbers[at] ^= mask
    assert changed != CHECKSUM
    assert checksum(MODEL) == CHECKSUM


def test_the_checksum_is_that_of_the_weights_not_of_the_object():
    assert checksum(tiny("gpt2", torch.float32)) == CHECKSUM
    assert checksum(torch.compile(MODEL, backend="eager")) == CHECKSUM


def test_the_checksum_survives_saving_and_loading(saved):
    assert checksum(load(saved, device="cpu")[0]) == checksum(lively("llama", torch.float32))


def test_the_checksum_knows_the_number_format():
    assert checksum(tiny("gpt2", torch.float64)) != checksum(tiny("gpt2", torch.float64).to(torch.float32))


def test_the_checksum_reads_bfloat16_and_single_numbers():
    model = tiny("llama", torch.bfloat16)
    before = checksum(model)
    model.scalar = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.bfloat16))
    assert checksum(model) != before


def test_swapping_two_equal_shaped_weights_changes_the_checksum():
    model = tiny("llama")
    before, mlp = checksum(model), model.model.layers[0].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj
    assert checksum(model) != before


def test_the_tokenizer_s_hash_ignores_how_it_was_used():
    tokenizer = tiny_tokenizer()
    before = tokenizer_hash(tokenizer)
    tokenizer(["the cat sat", "a"], padding=True, truncation=True, max_length=2)
    assert tokenizer_hash(tokenizer) == before


def test_the_tokenizer_s_hash_knows_its_definition():
    assert tokenizer_hash(tiny_tokenizer(True)) != tokenizer_hash(tiny_tokenizer(False))


def test_a_description_is_the_same_wherever_the_model_lies(saved, copy):
    a, b = (describe(*load(folder, device="cpu")) for folder in (saved, copy))
    assert (a["model"]["path"], b["model"]["path"]) == (str(saved), str(copy))
    assert lasting(a) == lasting(b)
    assert compared(a, b) == Verdict()
    assert a["model"]["dtype"] == "float32"


# --- what strangers write ---

CONFIGS = [
    {"hidden_act": 5},
    {"num_attention_heads": 0},
    {"num_attention_heads": 7},
    {"num_attention_heads": "many"},
    {"dtype": "bogus"},
    {"hidden_size": -1},
    {"hidden_size": 10**15},
    {"rope_parameters": [1]},
    {"vocab_size": None},
    {"num_hidden_layers": "x"},
]


@pytest.mark.parametrize("changes", CONFIGS, ids=str)
def test_a_configuration_that_makes_no_model_is_a_model_error_of_one_paragraph(copy, changes):
    change_json(copy / "config.json", **changes)
    for make in (lambda: load(copy, device="cpu"), lambda: skeleton(copy)):
        with pytest.raises(ModelError) as error:
            make()
        assert str(copy) in str(error.value)
        assert "Traceback" not in str(error.value)
        assert len(str(error.value)) < 1200


FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "text", ["[]", "[1]", "3", "null", '"text"', "", "[" * 100_000, "\ud83d"], ids=lambda text: text[:6] or "empty"
)
def test_a_file_of_another_kind_of_json_is_a_model_error_or_harmless(copy, file, text):
    (copy / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    said = ""
    try:
        load(copy, device="cpu")
    except ModelError as error:
        said = str(error)
    assert not said or (str(copy) in said and len(said) < 1200)


class _Code:
    def __reduce__(self):
        return (print, ("code was run",))


def test_pickled_weights_with_code_are_refused_without_telling_how_to_run_it(copy, capsys):
    (copy / "model.safetensors").unlink()
    torch.save({"x": _Code()}, copy / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        load(copy, device="cpu")
    assert "weights_only" not in str(error.value)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"GGUF\x03\0\0\0" + b"\x01" + b"\0" * 7 + b"\xff" * 8]
)
def test_a_gguf_file_that_is_cut_short_or_claims_too_much_is_a_model_error(tmp_path, data):
    (tmp_path / "g.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=r"g\.gguf could not be loaded"):
        load(tmp_path / "g.gguf", device="cpu")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_told_as_such(bad):
    model = tiny("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = bad
    with pytest.raises(
        ModelError,
        match=r"1 of its weights hold NaN or infinite values \(model\.layers\.1\.mlp\.up_proj\.weight\), .*another copy",
    ):
        find(model)
