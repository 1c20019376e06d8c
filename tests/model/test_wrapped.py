"""Models that something else has hold of: adapters, and weights that are not where they run."""

from __future__ import annotations

import hashlib
import struct
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from lape.data.texts import Documents
from lape.edit.edit import Add, Off, Scale, Set, edited
from lape.errors import MismatchError, ModelError, OptionError
from lape.model import gguf, sample
from lape.model.configuration import number_format
from lape.model.find import find
from lape.model.identity import check_made_with, checksum, describe
from lape.model.load import load
from lape.model.precision import in_float32
from lape.recording.record import record
from lape.ship.export import export
from lape.values.neurons import NeuronSet
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats
from support.brute import assert_near, lively, logits_of, some_texts, tokenizer_of
from support.gguf_file import write_gguf
from support.tiny import tiny
from support.zoo.table import KINDS
from support.zoo.written import build

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.randint(40, 300, (2, 9), generator=torch.Generator().manual_seed(1))
TEXTS = {"en": Documents(some_texts(6))}


def with_adapters(model, *targets):
    peft = pytest.importorskip("peft", reason="needs peft")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=list(targets), lora_dropout=0.1)).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    return wrapped


def third(space):
    return NeuronSet(space, torch.arange(0, len(space), 3))


@pytest.mark.parametrize("kind", ["llama", "phi3", "gpt_neox", "lfm2"])
def test_a_model_with_adapters_is_its_merged_self(kind):
    targets = {
        "llama": ("gate_proj", "up_proj", "down_proj", "q_proj"),
        "phi3": ("gate_up_proj", "down_proj"),
        "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
        "lfm2": ("w1", "w2", "w3"),
    }[kind]
    wrapped = with_adapters(lively(kind, torch.float32), *targets)
    counts = record(wrapped, tokenizer_of(), TEXTS)["en"]
    with edited(wrapped, Off(third(find(wrapped).space))):
        off = logits_of(wrapped, IDS)
    assert not torch.equal(off, logits_of(wrapped, IDS))
    merged = wrapped.merge_and_unload()
    expected = record(merged, tokenizer_of(), TEXTS)["en"]
    assert find(merged).space == find(wrapped).space
    assert float((counts.fires - expected.fires).abs().sum() / expected.fires.sum()) < 1e-3
    assert_near(counts.sums("sum"), expected.sums("sum"), 1e-4)
    with edited(merged, Off(third(find(merged).space))):
        assert_near(off, logits_of(merged, IDS), 1e-4)


def offloaded(model, tmp_path, where):
    """The middle block's weights away from where they are used."""
    accelerate = pytest.importorskip("accelerate", reason="needs the extra accelerate")
    block = model.model.layers[1]
    if where == "cpu":
        accelerate.cpu_offload(block, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(block, str(tmp_path / "weights"), execution_device=torch.device("cpu"))
    return model


@pytest.mark.parametrize("where", ["cpu", "disk"])
@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_weights_that_are_brought_when_they_are_used(name, where, tmp_path):
    plain, away = (build(name, KINDS[name]) for _ in range(2))
    offloaded(away, tmp_path, where)
    forwards = {"plain": 0, "away": 0}
    for key, model in (("plain", plain), ("away", away)):
        model.model.embed_tokens.register_forward_hook(lambda *_, k=key: forwards.update({k: forwards[k] + 1}))
    assert find(away).space == find(plain).space
    layers = len(find(plain).space.layers)
    assert forwards["away"] == forwards["plain"] - (layers - 1), "no forward for each layer, each fetching all weights"
    assert any("all layers at once" in one for one in find(away).checked)
    chosen = third(find(plain).space)
    with edited(plain, Off(chosen)):
        expected = logits_of(plain, IDS)
    with edited(away, Off(chosen)):
        assert_near(logits_of(away, IDS), expected)
    assert_near(logits_of(away, IDS), logits_of(plain, IDS))


def quantised(folder, bits):
    """A small Llama of random weights in 8 or 4 bits, by bitsandbytes, its checkpoint written to a folder."""
    pytest.importorskip("bitsandbytes")
    if not folder.exists():
        tiny("llama", torch.float32, hidden_size=64, intermediate_size=128).save_pretrained(folder)
        tokenizer_of().save_pretrained(folder)
    return load(folder, bits=bits, dtype="bfloat16", device="cpu")[0]


@contextmanager
def rewritten(model, alter):
    """Every MLP's forward written out, its activation altered; `alter`: layer, activation -> activation."""
    for layer, block in enumerate(model.model.layers):

        def forward(x, mlp=block.mlp, layer=layer):
            return mlp.down_proj(alter(layer, mlp.act_fn(mlp.gate_proj(x))) * mlp.up_proj(x))

        block.mlp.forward = forward
    yield
    for block in model.model.layers:
        del block.mlp.forward


EDITS = {
    "off": (Off, (), lambda a: a * 0),
    "set": (Set, (0.5,), lambda a: torch.full_like(a, 0.5)),
    "add": (Add, (0.25,), lambda a: a + 0.25),
    "scale": (Scale, (2.0,), lambda a: a * 2),
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("edit", EDITS)
def test_quantised_weights_are_edited_as_written_out(bits, edit, tmp_path):
    model = quantised(tmp_path / "model", bits)
    chosen = third(find(model).space)
    made, given_, alter = EDITS[edit]
    mask = torch.zeros(len(chosen.space), dtype=torch.bool)
    mask[chosen.flat] = True
    before = logits_of(model, IDS)
    with rewritten(model, lambda layer, a: torch.where(mask.view(-1, 128)[layer], alter(a), a)):
        expected = logits_of(model, IDS)
        answer = model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0)
    with edited(model, made(chosen, *given_)):
        assert torch.equal(logits_of(model, IDS), expected)
        assert torch.equal(model.generate(IDS, max_new_tokens=4, do_sample=False, pad_token_id=0), answer)
    assert not torch.equal(expected, before)
    assert torch.equal(logits_of(model, IDS), before)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_counted_as_written_out(bits, tmp_path):
    model = quantised(tmp_path / "model", bits)
    fires = torch.zeros(len(model.model.layers), 128, dtype=torch.int64)

    def count(layer, a):
        fires[layer] += (a[:, 1:] > 0).flatten(0, 1).sum(0)  # BOS is not counted
        return a

    stats = record(model, tokenizer_of(), TEXTS, one_per_row=True, batch_tokens=8)
    rows = [tokenizer_of()(text)["input_ids"] for text in TEXTS["en"].texts]
    with rewritten(model, count), torch.no_grad():
        for row in rows:
            model(torch.tensor([row]))
    assert int(stats["en"].tokens.sum()) == sum(len(row) - 1 for row in rows)
    assert torch.equal(stats["en"].fires.sum(0), fires.flatten())


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_have_a_checksum_of_scales_and_layout(bits, tmp_path):
    model, again = (quantised(tmp_path / "model", bits) for _ in range(2))
    known = checksum(model)
    logits_of(again, IDS)
    assert checksum(again) == checksum(model) == known
    down = again.model.layers[1].mlp.down_proj
    with torch.no_grad():
        scales = down.weight.quant_state.absmax if bits == 4 else down.state.SCB
        scales[0] *= 1.5
    assert checksum(again) != known


def test_statistics_of_another_number_format_pass_and_of_other_weights_do_not(tmp_path):
    eight, four = (quantised(tmp_path / "model", bits) for bits in (8, 4))
    plain = load(tmp_path / "model", dtype="bfloat16", device="cpu")[0]
    assert number_format(plain) == "bfloat16"
    assert number_format(eight) == "bfloat16 bitsandbytes 8 bits cpu"
    assert number_format(four) == "bfloat16 bitsandbytes 4 bits cpu"
    for made in (plain, eight, four):
        for other in (plain, eight, four):
            check_made_with(other, statistics=ActivationStats(find(made).space, {}, describe(made, None)))
    stats = ActivationStats(find(eight).space, {}, describe(eight, None))
    with torch.no_grad():
        eight.model.layers[0].mlp.down_proj.weight[0, 0] += 1
    with pytest.raises(MismatchError, match="statistics"):
        check_made_with(eight, statistics=stats)
    check_made_with(eight, statistics=stats.space)  # what says nothing of weights is not judged by them
    with pytest.raises(MismatchError, match=r"neurons belong to a model with .*2 × 7.*this model has .*lape record"):
        check_made_with(eight, neurons=NeuronSpace.dense(2, 7), statistics=stats)


def test_outliers_of_another_row_do_not_spoil_the_proof_of_8_bit_weights(tmp_path):
    folder = tmp_path / "model"
    model = tiny("llama", torch.float32, hidden_size=64, intermediate_size=128)
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.up_proj.weight.mul_(6)  # some products above the threshold
    model.save_pretrained(folder)
    tokenizer_of().save_pretrained(folder)
    model = quantised(folder, 8)
    other = IDS.clone()
    other[1] = IDS[1] - 30
    assert not torch.equal(logits_of(model, IDS)[0], logits_of(model, other)[0]), "rows do depend on each other"
    assert len(find(model).space) == 3 * 128
    assert {block.mlp.down_proj.state.threshold for block in model.model.layers} == {6.0}


def test_bits_that_are_none_are_refused(tmp_path):
    with pytest.raises(OptionError, match="Expected 8, 4"):
        load(tmp_path, bits=3)


def test_gradients_that_do_not_pass_are_refused_before_anything_is_recorded(tmp_path):
    eight, four = (quantised(tmp_path / "model", bits) for bits in (8, 4))
    stats = record(eight, tokenizer_of(), TEXTS, attribution=50)
    assert "attribution" in stats["en"].tensors
    logits_of(four, IDS)
    if has_gradients(four.model.layers[0].self_attn.q_proj):
        pytest.skip("here gradients pass through 4-bit weights")
    with pytest.raises(ModelError, match=r"Linear4bit.*attributions would be wrong"):
        record(four, tokenizer_of(), TEXTS, attribution=50, out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def has_gradients(linear):
    """Whether a row of the weights comes back as the gradient of one output."""
    x = torch.randn(1, 2, linear.in_features, dtype=torch.bfloat16, requires_grad=True)
    try:
        (back,) = torch.autograd.grad(linear(x)[0, 0, 3], x)
    except RuntimeError:
        return False
    row = linear(torch.eye(linear.in_features, dtype=torch.bfloat16))[:, 3]
    return bool((back[0, 0] - row).abs().max() < 0.1 * row.abs().max())


# GGUF files


def test_a_gguf_file_is_unpacked_once_and_anew_where_it_changed(tmp_path, monkeypatch):
    """What is read is the same in every bit, whether it was unpacked now, before, or where there is no room to keep it."""
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))
    model, path, calls = tiny("llama", torch.float32, hidden_size=64, intermediate_size=128), tmp_path / "tiny.gguf", []
    write_gguf(model, path)
    inner = gguf._unpack
    monkeypatch.setattr(gguf, "_unpack", lambda *given: calls.append(given[1]) or inner(*given))

    def known(**options):
        model, tokenizer = load(path, device="cpu", **options)
        said = describe(model, tokenizer)
        return said["model"]["checksum"], said["model"]["dtype"], said["tokenizer"]

    first = known()
    assert (known(), len(calls)) == (first, 1)
    assert known(dtype="bfloat16") != first
    assert calls == ["auto", torch.bfloat16]
    assert sorted(one.name for one in (tmp_path / "cache" / "gguf").iterdir()) == sorted(
        gguf.place(path, dtype).name for dtype in ("auto", "bfloat16")
    )
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_known", lambda _: None)
        patch.setattr(gguf.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert known() == first
    assert len(calls) == 2
    with torch.no_grad():
        model.lm_head.weight[5, 5] += 1
    write_gguf(model, path)
    assert known()[0] != first[0]
    assert len(calls) == 3
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises((ModelError, struct.error)):  # as without a cache
        load(path, device="cpu")
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_a_gguf_file_is_its_unpacked_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))
    model = tiny("llama", torch.float32, hidden_size=64, intermediate_size=128)
    path = tmp_path / "tiny.gguf"
    write_gguf(model, path)
    unpacked, tokenizer = load(path, device="cpu")
    assert_near(logits_of(unpacked, IDS), logits_of(model, IDS), 1e-5)
    stats = record(unpacked, tokenizer, TEXTS)["en"]
    expected = record(model, tokenizer, TEXTS)["en"]
    assert torch.equal(stats.fires, expected.fires)
    assert load(str(path), dtype="bfloat16", device="cpu")[0].dtype == torch.bfloat16
    with pytest.raises(OptionError, match="unpacked"):
        load(path, bits=8)


def test_results_name_the_gguf_file_and_the_formats_of_its_tensors(tmp_path, monkeypatch):
    """Whatever the number format that the weights are unpacked to, and where they are: a model that was quantised is called so."""
    monkeypatch.setenv("LAPE_CACHE", str(tmp_path / "cache"))
    model, path = tiny("llama", torch.float32, hidden_size=64, intermediate_size=128), tmp_path / "tiny.gguf"
    write_gguf(model, path)
    mlps = 3 * model.config.num_hidden_layers
    expected = {
        "file": "tiny.gguf",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tensors": {"F32": len(model.state_dict()) - mlps, "Q8_0": mlps},
    }
    unpacked, tokenizer = load(path, dtype="bfloat16", device="cpu")
    stats = record(unpacked, tokenizer, TEXTS)
    assert (stats.manifest["model"]["gguf"], stats.manifest["model"]["dtype"]) == (expected, "bfloat16")
    with in_float32(unpacked):
        assert describe(unpacked, tokenizer)["model"]["gguf"] == expected

    kept = gguf.place(path, "bfloat16") / "origin.json"
    kept.unlink()  # as in folders of earlier versions
    assert described(path) == expected
    assert kept.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "describe_file", lambda _: pytest.fail("read again"))
        assert described(path) == expected
    with monkeypatch.context() as patch:
        patch.setattr("lape.model.load.unpacked", lambda *_: None)  # no room for it in the cache
        assert described(path) == expected
    with torch.no_grad():
        unpacked.get_output_embeddings().weight[0, 0] += 1
    assert describe(unpacked, tokenizer)["model"]["gguf"] is None, "these are no longer the weights of that file"
    assert describe(model, None)["model"]["gguf"] is None


def described(path):
    return describe(*load(path, dtype="bfloat16", device="cpu"))["model"]["gguf"]


def test_an_older_folder_of_the_sample_model_gets_its_record(tmp_path, monkeypatch):
    write_gguf(tiny("llama", torch.float32, hidden_size=64, intermediate_size=128), tmp_path / "part")
    digest = hashlib.sha256((tmp_path / "part").read_bytes()).hexdigest()
    monkeypatch.setattr(sample, "_parts", lambda: [tmp_path / "part"])
    monkeypatch.setattr(sample, "SHA256", digest)
    folder = tmp_path / "gemma-3-270m"
    folder.mkdir()
    found = sample.origin(folder)
    assert found["sha256"] == digest
    assert found["file"] == "gemma-3-270m-q4_k_m.gguf"
    assert {*found["tensors"]} == {"F32", "Q8_0"}
    assert {one.name for one in tmp_path.iterdir()} == {"part", "gemma-3-270m"}

    def gone():
        raise OptionError("the packages are gone")

    monkeypatch.setattr(sample, "_parts", gone)
    assert sample.origin(folder) == found
    (folder / "origin.json").unlink()
    assert sample.origin(folder) is None


def test_quantised_weights_are_not_exported(tmp_path):
    model = quantised(tmp_path / "model", 8)
    with pytest.raises(ModelError, match="quantised"):
        export(model, Off(third(find(model).space)), tmp_path / "out")
