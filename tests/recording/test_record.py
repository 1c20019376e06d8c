"""Tokens are counted once, alone and as text; a run is a folder; a killed run ends with the same bits."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lape.data.texts import Documents
from lape.errors import FileError, ModelError, OptionError, TextError
from lape.recording.record import record
from lape.values.stats import ActivationStats, merge
from support import child
from support.brute import (
    WORDS,
    activations,
    assert_near,
    hooks_on,
    lively,
    model_of,
    row_of,
    some_texts,
    sums_of,
    tokenizer_of,
)
from support.made import same_tensors
from support.tiny import LAYERS
from support.zoo.table import KINDS
from support.zoo.written import build

SUMS = ("sum", "square", "positive", "written", "written_square")


def recorded(texts, kind="llama", tokenizer=None, **options):
    options = {"row_tokens": 64, **options}
    return record(model_of(kind), tokenizer or tokenizer_of(), {"en": Documents(texts)}, **options)["en"]


def assert_same_counts(a, b, share=1e-10):
    assert torch.equal(a.tokens.sum(), b.tokens.sum())
    assert torch.equal(a.fires.sum(0), b.fires.sum(0))
    for name in SUMS:
        assert_near(a.sums(name), b.sums(name), share)


# --- what is counted ---


@pytest.mark.parametrize("batch_tokens", [1, 200, 100_000])
@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2"])
def test_how_many_tokens_run_at_once_changes_no_count(kind, batch_tokens):
    texts = some_texts(30)
    usual, other = recorded(texts, kind), recorded(texts, kind, batch_tokens=batch_tokens)
    assert torch.equal(usual.fires, other.fires)  # fold by fold
    assert torch.equal(usual.tokens, other.tokens)
    assert_same_counts(usual, other)


@pytest.mark.parametrize("row_tokens", [40, 200])
def test_rows_longer_than_every_document_change_no_count(row_tokens):
    texts = some_texts(30)
    assert_same_counts(recorded(texts), recorded(texts, row_tokens=row_tokens))


def test_packing_counts_what_one_document_a_row_counts():
    texts = some_texts(30)
    assert_same_counts(recorded(texts), recorded(texts, one_per_row=True))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join), min_size=1, max_size=12))
def test_any_documents_count_as_each_does_alone(texts):
    expected = sums_of(model_of("llama"), "llama", texts, tokenizer_of())
    stats = recorded(texts)
    assert int(stats.tokens.sum()) == int(expected["tokens"])
    assert torch.equal(stats.fires.sum(0), expected["fires"])


def test_a_document_longer_than_a_row_is_cut_and_each_part_read_alone():
    text = " ".join(some_texts(8))
    ids, _ = row_of(text, tokenizer_of(), bos=False)
    parts = [activations(model_of("llama"), "llama", [1, *ids[at : at + 15]])[1:] for at in range(0, len(ids), 15)]
    stats = recorded([text], row_tokens=16)
    assert torch.equal(stats.fires.sum(0), (torch.cat(parts) > 0).sum(0))
    assert int(stats.tokens.sum()) == len(ids)


@pytest.mark.parametrize("bos", ["auto", "never", "always"])
@pytest.mark.parametrize("adds_bos", [True, False])
def test_rows_begin_with_bos_by_rule_and_bos_is_not_counted(bos, adds_bos):
    texts = some_texts(8)
    begins = bos == "always" or (bos == "auto" and adds_bos)
    expected = sums_of(model_of("llama"), "llama", texts, tokenizer_of(adds_bos), bos=begins)
    stats = recorded(texts, tokenizer=tokenizer_of(adds_bos), bos=bos)
    assert int(stats.tokens.sum()) == int(expected["tokens"])
    assert torch.equal(stats.fires.sum(0), expected["fires"])


def test_special_tokens_that_a_text_spells_out_are_read_but_not_counted():
    texts = ["the cat</s> sat <pad>on<s> the mat", "le chat"]
    expected = sums_of(model_of("llama"), "llama", texts, tokenizer_of())
    plain = sum(len(tokenizer_of()(text, add_special_tokens=False)["input_ids"]) for text in texts)
    stats = recorded(texts)
    assert int(stats.tokens.sum()) == int(expected["tokens"]) == plain - 3
    assert torch.equal(stats.fires.sum(0), expected["fires"])


def test_no_more_tokens_are_read_than_asked_for():
    texts = some_texts(30)
    assert int(recorded(texts, tokens=50).tokens.sum()) == 50


def test_with_64_documents_each_lies_in_one_fold():
    texts = some_texts(70, words=(1, 4))
    stats = recorded(texts)
    for fold in range(8):
        expected = sums_of(model_of("llama"), "llama", texts[fold::8], tokenizer_of())
        assert int(stats.tokens[fold]) == int(expected["tokens"])
        assert torch.equal(stats.fires[fold], expected["fires"])


def test_in_a_dense_model_every_token_is_routed():
    stats = recorded(some_texts(9))
    assert torch.equal(stats.routed, stats.tokens[:, None].expand(8, LAYERS))


def test_shards_of_whole_documents_merge_to_the_whole():
    texts = some_texts(30)
    tokenizer, model = tokenizer_of(), model_of("opt")
    parts = [
        record(model, tokenizer, {"en": Documents(texts[at : at + 10])}, row_tokens=64, one_per_row=True)
        for at in (0, 10, 20)
    ]
    assert_same_counts(merge(parts)["en"], recorded(texts, "opt", one_per_row=True))


def test_shards_of_64_documents_and_more_merge_fold_by_fold():
    texts = some_texts(160, words=(1, 3))
    model, tokenizer = model_of("llama"), tokenizer_of()
    parts = [record(model, tokenizer, {"en": Documents(some)}) for some in (texts[:80], texts[80:])]
    whole = record(model, tokenizer, {"en": Documents(texts)})
    assert torch.equal(merge(parts)["en"].fires, whole["en"].fires)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "opt", "qwen3_moe"])
@pytest.mark.parametrize("of", [3, 40])
def test_shards_of_batches_merge_to_the_whole_bit_for_bit_in_any_number_format(kind, dtype, of):
    """More shards than batches too: some are empty."""
    model = (build(kind, KINDS[kind]) if kind in KINDS else lively(kind)).to(dtype)
    texts = {"en": Documents(some_texts(40)), "fr": Documents(some_texts(9, seed=1))}
    options = {"row_tokens": 16, "batch_tokens": 32, "residual": True, "histogram": True, "attribution": 30}
    whole = record(model, tokenizer_of(), texts, **options)
    parts = [record(model, tokenizer_of(), texts, shard=f"{k}/{of}", **options) for k in range(1, of + 1)]
    merged = merge(parts)
    assert merged.manifest == whole.manifest
    for language in texts:
        for name, tensor in whole[language].tensors.items():
            if tensor.dtype == torch.int64:
                assert torch.equal(merged[language].tensors[name], tensor), name
            else:
                assert_near(merged[language].tensors[name], tensor, 1e-10)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "lfm2"])
def test_the_residual_is_the_sum_of_every_block_s_output(kind):
    model, texts = model_of(kind), some_texts(6)
    expected = torch.zeros(LAYERS, 32, dtype=torch.float64)
    for text in texts:
        ids, counted = row_of(text, tokenizer_of(), bos=True)
        seen: list[torch.Tensor] = []
        path = {"gpt2": "transformer.h", "opt": "model.decoder.layers"}.get(kind, "model.layers")
        handles = [
            block.register_forward_hook(lambda _m, _i, out, to=seen: to.append(out if torch.is_tensor(out) else out[0]))
            for block in model.get_submodule(path)
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        expected += torch.stack([hidden.reshape(-1, 32)[counted].sum(0) for hidden in seen])
    assert_near(recorded(texts, kind, residual=True).sums("residual"), expected)


def test_without_residual_the_statistics_say_how_to_get_it():
    with pytest.raises(OptionError, match="residual"):
        recorded(["the cat"]).sums("residual")


def test_the_lm_head_is_never_run():
    model = lively("llama")
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the LM head ran"))
    record(model, tokenizer_of(), {"en": Documents(some_texts(4))})


def test_recording_leaves_no_hook_behind_even_when_it_fails():
    model = lively("llama")

    def stop(task, *_):
        if task.startswith("recording"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(model, tokenizer_of(), {"en": Documents(some_texts(4))}, progress=stop)
    assert hooks_on(model) == 0


def test_dropout_never_enters_a_count():
    texts = {"en": Documents(some_texts(10))}
    model = lively("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    expected = record(model.eval(), tokenizer_of(), texts)
    left_in_training = record(model.train(), tokenizer_of(), texts)
    assert torch.equal(expected["en"].fires, left_in_training["en"].fires)


def test_a_compiled_model_is_recorded_as_it_is():
    texts = {"en": Documents(some_texts(6))}
    compiled = torch.compile(model_of("llama"), backend="eager")
    stats = record(compiled, tokenizer_of(), texts)["en"]
    assert torch.equal(stats.fires, record(model_of("llama"), tokenizer_of(), texts)["en"].fires)


def test_the_manifest_names_model_tokenizer_text_and_options():
    stats = record(model_of("llama"), tokenizer_of(), {"fra_Latn": Documents(["le chat"])}, residual=True)
    assert stats.languages == ["fr"]
    assert len(stats.manifest["model"]["checksum"]) == 64
    assert len(stats.manifest["tokenizer"]["hash"]) == 64
    assert set(stats.manifest["corpus"]["fr"]) == {"hash", "documents", "tokens"}
    assert stats.manifest["options"]["residual"] is True
    assert set(stats.manifest["versions"]) == {"lape", "torch", "transformers"}


@pytest.mark.parametrize("texts", [{}, {"klingonish": Documents(["a"])}, {"fr": Documents(["a"]), "fra_Latn": []}])
def test_texts_without_a_usable_tag_are_refused(texts):
    with pytest.raises(TextError):
        record(model_of("llama"), tokenizer_of(), texts)


# --- a run is a folder ---


@pytest.fixture
def texts(tmp_path):
    for language, seed in (("en", 0), ("fr", 1)):
        (tmp_path / f"{language}.txt").write_text("\n".join(some_texts(40, seed)), encoding="utf-8")
    return {language: str(tmp_path / f"{language}.txt") for language in ("en", "fr")}


def run(texts, out, **options):
    return record(model_of("llama"), tokenizer_of(), texts, out=out, **{"document": "line", **options})


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_leaves_its_statistics_and_what_made_them(texts, tmp_path):
    stats = run(texts, tmp_path / "run")
    assert names_in(tmp_path / "run") == {"stats.safetensors", "run.json"}
    assert names_in(tmp_path) == {"en.txt", "fr.txt", "run"}
    assert json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["verb"] == "record"
    assert torch.equal(ActivationStats.load(tmp_path / "run")["fr"].fires, stats["fr"].fires)


def test_a_run_counts_what_recording_without_a_folder_counts(texts, tmp_path):
    a, b = run(texts, tmp_path / "run"), run(texts, None)
    assert all(torch.equal(a[k].tensors[name], b[k].tensors[name]) for k in texts for name in b[k].tensors)


def test_an_existing_folder_is_refused_before_anything_is_read(texts, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FileError, match="overwrite"):
        run({"en": "missing.txt"}, tmp_path / "run")


def test_overwrite_replaces_an_existing_folder(texts, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()
    (tmp_path / "run" / "run.json").touch()  # the mark of a run
    run(texts, tmp_path / "run", overwrite=True)
    assert names_in(tmp_path / "run") == {"stats.safetensors", "run.json"}


def test_a_missing_text_leaves_nothing_behind(texts, tmp_path):
    with pytest.raises(TextError, match=r"missing\.txt"):
        run({**texts, "de": str(tmp_path / "missing.txt")}, tmp_path / "deep" / "run")
    assert names_in(tmp_path) <= {"en.txt", "fr.txt", "deep"}
    assert not (tmp_path / "deep").exists() or not names_in(tmp_path / "deep")


@pytest.mark.parametrize("text", ["." * 3000, "🙂" * 900, "\0" * 900], ids=["points", "emoji", "zeros"])
def test_a_text_without_letters_or_digits_is_recorded_as_any_other(text, tmp_path):
    texts = {"en": Documents([text]), "fr": Documents(some_texts(9))}
    stats = record(model_of("llama"), tokenizer_of(), texts, out=tmp_path / "run")
    assert stats["en"].tokens.sum() > 0
    assert same_tensors(stats, record(model_of("llama"), tokenizer_of(), texts))


def test_an_empty_text_is_refused_and_leaves_nothing_behind(texts, tmp_path):
    (tmp_path / "fr.txt").write_text("")
    with pytest.raises(TextError, match="empty"):
        run(texts, tmp_path / "run")
    assert names_in(tmp_path) == {"en.txt", "fr.txt"}


def stopped(texts, out, **options):
    """A run that is interrupted when it has counted some batches of the second language."""
    seen = []

    def stop(task, done, _total):
        seen.append(task)
        if task == "recording fr" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(texts, out, progress=stop, checkpoint_seconds=0, batch_tokens=32, row_tokens=32, **options)


def test_a_stopped_run_goes_on_and_ends_the_same(texts, tmp_path):
    stopped(texts, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    stats = run(texts, tmp_path / "run", checkpoint_seconds=0, batch_tokens=32, row_tokens=32)
    whole = run(texts, None, batch_tokens=32, row_tokens=32)
    assert all(torch.equal(stats[k].tensors[name], whole[k].tensors[name]) for k in texts for name in whole[k].tensors)


def test_what_was_counted_is_not_counted_again(texts, tmp_path):
    stopped(texts, tmp_path / "run")
    tasks = []
    run(
        texts,
        tmp_path / "run",
        checkpoint_seconds=0,
        batch_tokens=32,
        row_tokens=32,
        progress=lambda task, done, total: tasks.append((task, done == total)),
    )
    assert ("recording en", False) not in tasks


@pytest.mark.parametrize("change", [{"row_tokens": 16}, {"bos": "never"}, {"tokens": 30}, {"residual": True}])
def test_a_stopped_run_does_not_go_on_with_other_options(texts, tmp_path, change):
    stopped(texts, tmp_path / "run")
    with pytest.raises(FileError, match=r"stopped, in which (options|corpus) was .*; now it is .*delete"):
        run(texts, tmp_path / "run", **{"checkpoint_seconds": 0, "batch_tokens": 32, "row_tokens": 32, **change})


def test_a_stopped_run_does_not_go_on_with_another_text(texts, tmp_path):
    stopped(texts, tmp_path / "run")
    with Path(texts["fr"]).open("a", encoding="utf-8") as file:
        file.write("\nle chien")
    with pytest.raises(FileError, match=r"stopped, in which corpus was \{.fr"):
        run(texts, tmp_path / "run", batch_tokens=32, row_tokens=32)


def test_a_stopped_run_does_not_go_on_with_another_model(texts, tmp_path):
    stopped(texts, tmp_path / "run")
    with pytest.raises(FileError, match="stopped, in which model was"):
        record(
            lively("llama", seed=7),
            tokenizer_of(),
            texts,
            out=tmp_path / "run",
            document="line",
            batch_tokens=32,
            row_tokens=32,
        )


@pytest.mark.parametrize("last_first", [False, True])
def test_a_run_killed_while_it_tidies_up_is_not_mistaken_for_another(texts, tmp_path, monkeypatch, last_first):
    """Only some of its checkpoints are left then, and the next run may be of other text."""
    unlink, glob = Path.unlink, Path.glob

    def dying(self, *args, **kwargs):
        unlink(self, *args, **kwargs)
        if self.suffix == ".checkpoint":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", lambda self, pattern: sorted(glob(self, pattern), reverse=last_first))
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(KeyboardInterrupt):
            run(texts, tmp_path / "run")
    other = {"en": texts["fr"]}
    expected = run(other, None)["en"]
    try:
        stats = run(other, tmp_path / "run")["en"]
    except FileError:
        return
    assert torch.equal(stats.fires, expected.fires)


# --- in a process of its own ---


@pytest.fixture(scope="module")
def context():
    """Processes forked from one that has imported everything: a start costs milliseconds."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(
        [
            "support.child",
            "lape.model.discover",
            "lape.ship.export",
            "lape.experiments.perplexity.run",
            "transformers",
        ]
    )
    return made


def started(context, work, *args):
    process = context.Process(target=work, args=args)
    process.start()
    return process


def finished(context, work, *args):
    process = started(context, work, *args)
    process.join(120)
    return process.exitcode


def test_public_names_are_functions_whatever_was_imported_before(context):
    assert finished(context, child.public_names_are_functions) == 0


class Partly(torch.nn.Module):
    """An MLP that sees 20 tokens of a row at most, which is more than a proof's rows have."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return torch.cat([self.inner(x[:, :20]), torch.zeros_like(x[:, 20:])], 1)


def test_an_mlp_that_sees_a_part_of_long_rows_is_refused_by_name():
    model = lively("llama")
    model.model.layers[1].mlp = Partly(model.model.layers[1].mlp)
    with pytest.raises(ModelError, match=r"Layer 1: .*activations of 20 tokens in a forward of"):
        record(model, tokenizer_of(), {"en": Documents([" ".join(WORDS)])}, row_tokens=64)
