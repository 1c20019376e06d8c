"""A model from its configuration alone: a few layers of its real shapes, among them one of every kind."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig

from lape.cli import run
from lape.errors import ModelError
from lape.model.find import find
from lape.model.skeleton import is_bare, shallow, skeleton
from support.tiny import COMMON, tiny
from support.zoo.table import KINDS

pytestmark = pytest.mark.usefixtures("one_thread")


def config_of(name, **changes):
    given = {key: value for key, value in {**COMMON, **KINDS[name].config, **changes}.items() if value is not ...}
    return AutoConfig.for_model(name, **given)


def test_a_deep_model_is_made_shallow_and_keeps_its_widths():
    small = shallow(config_of("llama", num_hidden_layers=80))
    assert small.num_hidden_layers == 4
    assert (small.hidden_size, small.intermediate_size) == (32, 44)


def test_every_kind_of_layer_that_the_configuration_lists_is_kept():
    kinds = ["sliding_attention"] * 6 + ["full_attention"] + ["sliding_attention"] * 5
    small = shallow(config_of("gemma3_text", num_hidden_layers=12, layer_types=kinds))
    assert small.layer_types == kinds[:7]
    assert small.num_hidden_layers == 7


def test_the_text_part_of_a_multimodal_configuration_is_what_is_cut():
    config = config_of("gemma3")
    config.text_config.num_hidden_layers = 20
    config.text_config.layer_types = ["full_attention"] * 20
    small = shallow(config)
    assert small.text_config.num_hidden_layers == 4
    assert small.vision_config.num_hidden_layers == config.vision_config.num_hidden_layers


def test_a_configuration_without_a_number_of_layers_is_cut_by_its_list():
    config = config_of("nemotron_h")
    assert len(find(skeleton_of(config)).sites) == len(find(skeleton_of(shallow(config))).sites)


def skeleton_of(config):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    model.set_experts_implementation("eager")
    return model


def test_a_skeleton_is_proven_without_weights(tmp_path):
    config_of("qwen3_moe", num_hidden_layers=30).save_pretrained(tmp_path)
    made = skeleton(tmp_path)
    assert (made.layers, made.of) == (4, 30)
    assert {site.expert for site in find(made.model).sites} == {None, 0, 1, 2, 3}


def test_the_random_numbers_of_others_are_left_alone(tmp_path):
    config_of("llama").save_pretrained(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    skeleton(tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("files", "bare"), [(["config.json"], True), (["config.json", "model.safetensors"], False), ([], False)]
)
def test_a_folder_without_weights_is_bare(tmp_path, files, bare):
    for name in files:
        (tmp_path / name).write_text("{}")
    assert is_bare(tmp_path) == bare


def test_a_configuration_file_is_bare_and_a_name_is_not(tmp_path):
    (tmp_path / "c.json").write_text("{}")
    assert is_bare(tmp_path / "c.json")
    assert not is_bare("google/gemma-3-270m")


@pytest.mark.parametrize("text", ["{}", '{"model_type": "no_such_type"}', "not json"])
def test_what_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="no configuration that transformers knows"):
        skeleton(tmp_path)


def test_a_configuration_of_no_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match="not a causal language model"):
        skeleton(tmp_path)


def test_a_model_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    config_of("llama").save_pretrained(tmp_path)
    monkeypatch.setattr("lape.model.skeleton.free_memory", lambda: 1000)
    with pytest.raises(ModelError, match="larger machine"):
        skeleton(tmp_path)


def said_of(name, folder, capsys):
    config_of(name).save_pretrained(folder)
    assert run(["doctor", str(folder / "config.json")]) == 0
    return capsys.readouterr().out


def test_doctor_tells_dense_layers_experts_and_shared_experts_apart(tmp_path, capsys):
    said = said_of("deepseek_v3", tmp_path, capsys)
    assert "layer 0: 44 neurons, gated, SiLUActivation" in said
    assert "layers 1–2: 4 experts × 20 neurons, gated, routed experts" in said
    assert "model.layers.*.mlp.shared_experts.act_fn" in said
    assert "no weights were loaded" in said
    assert "3 of the configuration's 3 layers" in said


def test_doctor_says_where_the_sign_of_an_activation_is_not_its_input_s(tmp_path, capsys):
    assert "its sign is not always that of its input" in said_of("apertus", tmp_path, capsys)


def test_doctor_does_not_say_so_of_others(tmp_path, capsys):
    assert "its sign" not in said_of("bloom", tmp_path, capsys)


def test_doctor_names_a_functional_activation(tmp_path, capsys):
    said = said_of("lfm2", tmp_path, capsys)
    assert "gated, silu (a function)" in said
    assert "model.layers.*.feed_forward.w1 → model.layers.*.feed_forward.w2" in said


def test_doctor_refuses_a_bare_model_that_it_cannot_prove(tmp_path, capsys):
    config_of("jetmoe").save_pretrained(tmp_path)
    assert run(["doctor", str(tmp_path)]) == 2
    assert "--sites" in capsys.readouterr().err


def test_doctor_proves_weights_where_there_are_some(tmp_path, capsys):
    tiny("llama").save_pretrained(tmp_path)
    assert run(["doctor", str(tmp_path), "--config-only"]) == 0
    assert "no weights were loaded" in capsys.readouterr().out
