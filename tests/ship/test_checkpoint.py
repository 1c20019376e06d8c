"""An exported checkpoint is the edited model, in any engine; nothing half-written is ever left."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from lape.edit.edit import Add, Off, Scale, Set, by_unit, edited
from lape.errors import FileError, LapeError, MismatchError, ModelError, OptionError
from lape.model.find import find
from lape.model.load import load
from lape.model.weights import activations
from lape.ship.changes import changes, low_rank
from lape.ship.checkpoint import changed
from lape.ship.constant import Constant
from lape.ship.export import export
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from support.brute import KINDS, MLPS, assert_near, lively, logits_of, model_of, tokenizer_of, width_of
from support.tiny import LAYERS
from support.zoo.table import KINDS as ZOO
from support.zoo.written import build

IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70]])


def every(kind, start, step):
    space = NeuronSpace.dense(LAYERS, width_of(kind))
    return NeuronSet(space, torch.arange(start, len(space), step))


def some_edits(kind):
    return [Off(every(kind, 0, 5)), Scale(every(kind, 1, 3), -2.5), Scale(every(kind, 2, 4), 0.5)]


def reloaded(folder, dtype=torch.float64):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_checkpoint_is_the_edited_model(kind, tmp_path):
    edits = some_edits(kind)
    out = export(model_of(kind), edits, tmp_path / "out")
    with edited(model_of(kind), edits):
        expected = logits_of(model_of(kind), IDS)
    assert_near(logits_of(reloaded(out), IDS), expected)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "lfm2"])
def test_the_model_itself_is_not_changed(kind, tmp_path):
    before = {name: value.clone() for name, value in model_of(kind).state_dict().items()}
    export(model_of(kind), some_edits(kind), tmp_path / "out")
    after = model_of(kind).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt2"])
def test_only_the_edited_down_projections_differ(kind, tmp_path):
    first_layer = NeuronSet(NeuronSpace.dense(LAYERS, width_of(kind)), torch.arange(10))
    state = reloaded(export(model_of(kind), Off(first_layer), tmp_path / "out")).state_dict()
    differing = [name for name, value in model_of(kind).state_dict().items() if not torch.equal(value, state[name])]
    assert differing == [MLPS[kind].down.format(0) + ".weight"]


def test_without_an_edit_the_export_is_the_model(tmp_path):
    state = reloaded(export(model_of("gpt2"), [], tmp_path / "out")).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model_of("gpt2").state_dict().items())


def test_tied_weights_stay_tied(tmp_path):
    model = lively("llama", tie_word_embeddings=True)
    again = reloaded(export(model, some_edits("llama"), tmp_path / "out"))
    assert again.lm_head.weight is again.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_number_format_is_kept(dtype, tmp_path):
    out = export(lively("gpt2", dtype), some_edits("gpt2"), tmp_path / "out")
    assert reloaded(out, "auto").dtype == dtype


def test_with_a_tokenizer_the_export_loads_as_any_model(tmp_path):
    out = export(model_of("llama"), some_edits("llama"), tmp_path / "out", tokenizer=tokenizer_of())
    model, tokenizer = load(out, device="cpu")
    assert tokenizer("the cat")["input_ids"] == tokenizer_of()("the cat")["input_ids"]
    with edited(model_of("llama"), some_edits("llama")):
        assert_near(logits_of(model, IDS), logits_of(model_of("llama"), IDS))


def test_a_compiled_model_exports_as_itself(tmp_path):
    out = export(torch.compile(model_of("llama"), backend="eager"), some_edits("llama"), tmp_path / "out")
    with edited(model_of("llama"), some_edits("llama")):
        assert_near(logits_of(reloaded(out), IDS), logits_of(model_of("llama"), IDS))


@pytest.mark.parametrize(("edit", "said"), [(Set, "needs a constant"), (Add, r"Add at the gate instead.*lape\.edited")])
def test_what_has_no_exact_weights_is_refused_and_leaves_nothing(edit, said, tmp_path):
    with pytest.raises(OptionError, match=said):
        export(model_of("llama"), [Off(every("llama", 0, 5)), edit(every("llama", 1, 5), 1.0)], tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite_is_never_written(factor, tmp_path):
    with pytest.raises(LapeError, match="finite"):
        export(model_of("llama"), Scale(every("llama", 0, 5), factor), tmp_path / "out")


def test_neurons_of_another_model_are_refused(tmp_path):
    with pytest.raises(MismatchError):
        export(model_of("llama"), Off(every("bloom", 0, 5)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileError, match="overwrite"):
        export(model_of("llama"), some_edits("llama"), tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()


def test_overwrite_replaces_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    (tmp_path / "out" / "config.json").touch()  # the mark of a checkpoint
    out = export(model_of("llama"), some_edits("llama"), tmp_path / "out", overwrite=True)
    assert not (out / "mine").exists()
    assert (out / "config.json").exists()


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError(28, "No space left on device"), FileError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_failed_export_leaves_nothing_and_keeps_what_was_there(error, seen, tmp_path):
    class FullDisk(type(tokenizer_of())):
        def save_pretrained(self, _folder):
            raise error

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    (tmp_path / "out" / "config.json").touch()  # the mark of a checkpoint
    full = FullDisk(tokenizer_object=tokenizer_of().backend_tokenizer)
    with pytest.raises(seen):
        export(model_of("llama"), some_edits("llama"), tmp_path / "out", tokenizer=full, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").exists()


# --- shared weights, norms, adapters ---


def of_layers(model, *layers):
    """Every second neuron of some layers."""
    space = find(model).space
    flat = [torch.arange(s.start, s.stop, 2) for s in space if s.layer in layers]
    return NeuronSet(space, torch.cat(flat))


def test_layers_that_share_their_weights_are_baked_alike_or_not_at_all(tmp_path):
    model = build("zamba", ZOO["zamba"])
    shared = sorted({site.layer for site in find(model).sites})
    assert len(shared) > 1
    with pytest.raises(OptionError, match="shares its weights with another layer"):
        export(model, Off(of_layers(model, shared[0])), tmp_path / "one")
    ids = torch.randint(40, 300, (2, 9))
    with edited(model, Off(of_layers(model, *shared))):
        expected = logits_of(model, ids)
    export(model, Off(of_layers(model, *shared)), tmp_path / "all")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "all", dtype=torch.float64).eval()
    assert_near(logits_of(exported, ids), expected, 1e-6)


def test_neurons_before_a_norm_are_not_baked(tmp_path):
    model = build("bitnet", ZOO["bitnet"])
    with pytest.raises(OptionError, match=r"stands between the neurons.*lape\.edited"):
        export(model, Off(of_layers(model, 0)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_has_to_be_merged_first(tmp_path):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(lively("llama", torch.float32), LoraConfig(target_modules=["down_proj"])).eval()
    with pytest.raises(ModelError, match="merge_and_unload"):
        export(model, Off(of_layers(model, 0)), tmp_path / "out")


def test_experts_that_run_in_several_layers_are_scaled_once():
    model = build("inkling2_loop_text", ZOO["inkling2_loop_text"])
    found = find(model)
    looped = [site for site in found.sites if site.runs > 1]
    edit = Scale(of_layers(model, *(site.layer for site in found.sites)), 3.0)
    differing = changed(model, changes(model, by_unit(model, [edit]), biases=False), [])
    name = f"{looped[0].down}.{looped[0].layout.down.parameter}"
    before, after = model.get_parameter(name), differing[name]
    columns = torch.arange(before.shape[-1]) % 2 == 0
    torch.testing.assert_close(after[..., columns], 3 * before[..., columns], rtol=0, atol=0)
    torch.testing.assert_close(after[..., ~columns], before[..., ~columns], rtol=0, atol=0)


def test_weights_that_a_model_changes_as_it_runs_are_not_written(tmp_path):
    """RWKV's: what was divided when it first ran would be divided again."""
    model = build("rwkv", ZOO["rwkv"])
    with pytest.raises(OptionError, match=r"divides some of its weights.*format='lora'"):
        export(model, Off(of_layers(model, 0)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export(model, Off(of_layers(model, 0)), tmp_path / "adapter", format="lora").exists()


@pytest.mark.parametrize(
    "edit", [lambda some: Set(some, 0.5), lambda some: Add(some, 0.5, at="gate")], ids=["Set", "Add"]
)
@pytest.mark.parametrize(
    ("name", "why"), [("gemma3n_text", "not known what goes into"), ("falcon_h1", "scaled or clamped before")]
)
def test_a_gate_that_is_more_than_a_projection_is_refused_with_its_layer(name, why, edit, tmp_path):
    model = build(name, ZOO[name])
    with pytest.raises(OptionError, match=rf"layer 0: .*{why}"):
        export(model, edit(of_layers(model, 0)), tmp_path / "out", format="lora")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "smollm3", "minimax_m3_vl_text"])
def test_a_neuron_that_is_set_is_held_where_the_direction_says_one(name):
    """Apart, in one matrix with the up projection, in a Conv1D, with biases, clamped: the others are as they were."""
    model = build(name, ZOO[name])
    chosen = of_layers(model, 0)
    (change,) = changes(model, by_unit(model, [Set(chosen, 0.3)]), biases=False)
    linear = model.get_submodule(change.site.gate.module)
    x = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fitted = Constant(x / (x @ x), torch.eye(32, dtype=torch.float64), {}, 0.0, 0.0, 0)
    (one,) = low_rank(model, [change], {change.site.gate.module: fitted})
    with torch.no_grad():
        before = linear(x[None])[0]
    after = before + one.b @ (one.a @ x)
    mine = torch.zeros(len(before), dtype=torch.bool)
    mine[chosen.flat + change.site.gate.offset] = True
    assert_near(activations(model, change.site, after[mine]), torch.full((len(chosen.flat),), 0.3).double(), 1e-6)
    assert torch.equal(after[~mine], before[~mine])


def test_a_value_above_a_clamped_gate_is_given_by_no_input():
    """The clamp is part of the activation function: silu of 1 is .73 here, and quick gelu .85."""
    model = build("minimax_m3_vl_text", ZOO["minimax_m3_vl_text"])
    with (
        pytest.raises(OptionError, match=r"layer 0: no input of its activation function gives 0\.9"),
        edited(model, Add(of_layers(model, 0), 0.9, at="gate")),
    ):
        pass
