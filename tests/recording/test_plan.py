"""What a plan says, against the work itself: parameters, neurons, arithmetic, bytes and passes."""

from __future__ import annotations

import json

import pytest
import torch

from lape.cli import main
from lape.cli.common import span
from lape.cli.plan import flop, size
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.errors import ModelError, OptionError
from lape.experiments.perplexity.run import PerplexityOptions, line_losses
from lape.model.find import find
from lape.recording.plan import PlanOptions, plan
from lape.recording.record import record
from support.brute import some_texts, tokenizer_of
from support.tiny import LAYERS, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def bare(kind, folder, **changes):
    model = tiny(kind, torch.bfloat16, **changes)
    model.config.save_pretrained(folder)
    return model, folder / "config.json"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("layers", [LAYERS, 9])
def test_parameters_and_neurons_are_those_of_the_whole_model(kind, layers, tmp_path):
    names = ("num_hidden_layers", "n_layer") if kind == "gpt2" else ("num_hidden_layers",)
    model, path = bare(kind, tmp_path, **dict.fromkeys(names, layers))
    made = plan(path, batch_tokens=64)
    assert made.parameters == sum(p.numel() for p in model.parameters())
    assert made.weights == 2 * made.parameters
    assert (made.layers, made.neurons) == (layers, len(find(model).space))


def test_a_token_costs_two_flop_a_weight_and_its_attention(tmp_path):
    model, path = bare("llama", tmp_path, num_hidden_layers=7)
    weights = sum(p.numel() for name, p in model.model.layers.named_parameters() if p.dim() == 2)
    attention = (
        7 * 2 * 2 * 32 * 512
    )  # every of 512 tokens with every: scores and values, in 32 dimensions over all heads
    made = plan(path, batch_tokens=64)
    assert made.flops == pytest.approx(2 * weights + attention, rel=1e-4)
    assert made.head_flops == 2 * 32 * model.config.vocab_size


def test_only_the_experts_that_a_token_meets_are_counted(tmp_path):
    changes = {"num_experts": 8, "moe_intermediate_size": 44, "decoder_sparse_step": 1, "norm_topk_prob": True}
    from transformers import AutoConfig

    for chosen in (1, 4):
        config = AutoConfig.for_model(
            "qwen3_moe",
            vocab_size=300,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_experts_per_tok=chosen,
            **changes,
        )
        config.save_pretrained(tmp_path / str(chosen))
    few, more = (plan(tmp_path / str(k) / "config.json", batch_tokens=64) for k in (1, 4))
    assert few.parameters == more.parameters
    assert few.neurons == more.neurons == 3 * 8 * 44
    assert more.flops - few.flops == pytest.approx(
        3 * 3 * 2 * 3 * 32 * 44
    )  # three experts more, three matrices, three layers


def test_statistics_take_the_bytes_that_a_recording_writes(tmp_path):
    model, path = bare("llama", tmp_path)
    stats = record(model, tokenizer_of(), {"en": Documents(some_texts(9))})["en"]
    written = sum(
        stats.tensors[name].nbytes for name in ("fires", "sum", "square", "positive", "written", "written_square")
    )
    assert plan(path, batch_tokens=64).statistics == written


def test_as_many_passes_are_planned_as_perplexity_runs(tmp_path):
    model, path = bare("llama", tmp_path, intermediate_size=400)
    tokenizer = tokenizer_of()
    texts = {language: Documents(some_texts(20, seed)) for seed, language in enumerate(("en", "fr", "ja"))}
    neurons = identify(record(model, tokenizer, texts), rate=0.1)
    assert all(len(found) for found in neurons.values())
    options = PerplexityOptions(draws=2, elsewhere=1, allow_recorded=True)
    run = line_losses(model, tokenizer, neurons, texts, options).unique(["off", "kind", "draw", "language"])
    made = plan(path, languages=3, draws=2, elsewhere=1, evaluate=100, batch_tokens=64)
    assert made.passes == len(run)
    assert made.evaluate_tokens == 100 * len(run)


def test_time_is_arithmetic_over_speed(tmp_path):
    _, path = bare("llama", tmp_path)
    options = PlanOptions(languages=3, tokens=1000, gpus=4, tflops=2.0, share=0.25)
    made = plan(path, **vars(options))
    assert made.probe is None
    assert made.record_seconds == pytest.approx(3000 * made.flops / (4 * 0.5e12))
    tokens = made.passes * options.evaluate
    assert made.evaluate_seconds == pytest.approx(tokens * (made.flops + made.head_flops) / (4 * 0.5e12))
    measured = plan(path, languages=3, tokens=1000)
    assert measured.probe is not None
    assert measured.speed == pytest.approx(measured.flops / LAYERS / measured.probe.recording)


def test_a_copy_that_fits_on_no_device_says_how_many_it_needs(tmp_path):
    model, path = bare("llama", tmp_path)
    bytes_ = 2 * sum(p.numel() for p in model.parameters())
    small = PlanOptions(gpus=8, tflops=1.0, gpu_memory=bytes_ / 2**30 / 2)
    assert plan(path, **vars(small)).a_copy == 3  # twice its memory and what runs beside the weights
    assert plan(path, gpus=8, tflops=1.0).a_copy == 1


def test_gpus_that_cannot_be_measured_here_need_their_speed(tmp_path):
    _, path = bare("llama", tmp_path)
    if torch.accelerator.is_available():
        pytest.skip("there is one")
    with pytest.raises(OptionError, match="tflops=989"):
        plan(path, gpus=8)


@pytest.mark.parametrize("change", [{"languages": 0}, {"tokens": 0}, {"gpus": -1}, {"tflops": 0.0}, {"share": 1.5}])
def test_options_without_sense_are_refused(change):
    with pytest.raises(OptionError, match=next(iter(change))):
        PlanOptions(**change)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing of the kind"}), encoding="utf-8")
    with pytest.raises(ModelError, match="configuration"):
        plan(tmp_path / "config.json")


def test_numbers_are_said_as_people_read_them():
    assert [size(n) for n in (0, 999, 1024, 3.5 * 2**20, 2**40, 5 * 2**50)] == [
        "0 B",
        "999 B",
        "1 KiB",
        "3.5 MiB",
        "1 TiB",
        "5.12e+03 TiB",
    ]
    assert [flop(n) for n in (5, 2.5e9, 1.37e19, 4e22)] == ["5 FLOP", "2.5 GFLOP", "13.7 EFLOP", "40 ZFLOP"]
    assert [span(n) for n in (3, 89.6, 600, 7200, 10**6)] == ["3 s", "90 s", "10 min", "2.0 h", "11.6 days"]


def test_the_command_line_says_all_of_it(tmp_path, capsys):
    _, path = bare("llama", tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["plan", str(path), "--languages", "3", "--tokens", "2k"])
    assert end.value.code in (0, None)
    said = capsys.readouterr().out
    assert f"{LAYERS} layers, {LAYERS * 44} neurons" in said
    assert "6,000 tokens" in said
    assert (
        "156 passes" in said
    )  # (3 + 1) · 3, 2 controls · 20 draws · 3, and 4 of the matched draws in 2 other languages · 3
