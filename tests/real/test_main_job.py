"""The main job on the real embedded model and the bundled texts: what the method claims must come out."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
import torch

import lape
from lape.data import samples
from lape.detect.lape import lape as find_lape
from lape.detect.stability import UNION, reliability, split_halves
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

SPECIFIC = ("zh", "fr", "es", "vi", "id", "ja")


@pytest.fixture(scope="module")
def table(loaded: tuple[Any, Any], neurons: LanguageNeurons) -> pl.DataFrame:
    return lape.perplexity(*loaded, neurons, samples.texts("evaluate", 1), row_tokens=256, draws=1)


def test_the_tokenizer_is_the_true_one(loaded: tuple[Any, Any]) -> None:
    assert loaded[1]("The quick brown fox")["input_ids"] == [2, 818, 3823, 8864, 37423]


def test_results_name_the_model_and_no_folder_of_a_machine(stats: ActivationStats) -> None:
    assert stats.manifest["model"]["id"] == "gemma-3-270m"


def test_every_text_token_is_counted_once(loaded: tuple[Any, Any], stats: ActivationStats) -> None:
    for language, documents in samples.texts("record").items():
        ids = [loaded[1](text, add_special_tokens=False)["input_ids"] for text in documents.texts]
        assert int(stats[language].tokens.sum()) == sum(map(len, ids))


def test_counts_agree_with_a_plain_loop_over_documents(loaded: tuple[Any, Any], stats: ActivationStats) -> None:
    """Counted by a hook written here, one document at a time: packing changes bf16 rounding and nothing else."""
    model, tokenizer = loaded
    fires = torch.zeros(18, 2048, dtype=torch.int64)

    def add(k: int, out: torch.Tensor) -> None:
        fires[k] += (out[0, 1:] > 0).sum(0)

    hooks = [
        layer.mlp.act_fn.register_forward_hook(lambda _m, _i, out, k=k: add(k, out))
        for k, layer in enumerate(model.model.layers)
    ]
    try:
        with torch.inference_mode():
            for text in samples.texts("record")["fr"].texts:
                ids = tokenizer(text, return_tensors="pt")["input_ids"]
                for at in range(1, ids.shape[1], 255):  # rows of 256, BOS included
                    model.model(input_ids=torch.cat([ids[:, :1], ids[:, at : at + 255]], 1), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    difference = (stats["fr"].fires.sum(0) - fires.flatten()).abs()
    assert difference.sum() / fires.sum() < 0.002


def test_english_has_the_fewest_neurons(neurons: LanguageNeurons) -> None:
    sizes = {language: len(found) for language, found in neurons.items()}
    assert min(sizes, key=lambda k: sizes[k]) == "en"
    assert all(40 < sizes[language] < 180 for language in SPECIFIC)
    assert len(neurons.union) == round(0.01 * 36864)


def test_most_neurons_lie_in_the_last_quarter(neurons: LanguageNeurons) -> None:
    by_layer = neurons.by_layer().group_by("layer").agg(pl.col("neurons").sum()).sort("layer")["neurons"].to_list()
    assert sum(by_layer[13:]) > 0.5 * sum(by_layer)
    assert by_layer[0] == max(by_layer[:10])


def test_sets_come_out_again_from_other_text(stats: ActivationStats, neurons: LanguageNeurons) -> None:
    rows = {row["language"]: row for row in reliability(neurons, split_halves(stats, find_lape)).iter_rows(named=True)}
    assert rows[UNION]["median"] > 0.7 > 10 * rows[UNION]["chance"]


@pytest.mark.parametrize("language", SPECIFIC)
def test_own_language_is_hurt_most_and_beyond_every_control(table: pl.DataFrame, language: str) -> None:
    rows = table.filter(pl.col("off") == language)
    own = rows.row(by_predicate=pl.col("language") == language, named=True)
    assert own["delta_sentence"] == rows["delta_sentence"].max()
    assert own["delta_token"] >= 0.3
    assert own["delta_token"] > own["random_max"]
    assert own["delta_token"] > own["matched_max"]


def test_english_neurons_change_almost_nothing(table: pl.DataFrame) -> None:
    assert table.filter((pl.col("off") == "en") & (pl.col("language") == "en"))["delta_token"].abs().item() < 0.1


def test_base_perplexity_is_that_of_a_working_model(table: pl.DataFrame) -> None:
    assert table["perplexity_base"].max() < 100


def test_steering_from_english_makes_it_write_another_script(
    loaded: tuple[Any, Any], stats: ActivationStats, neurons: LanguageNeurons
) -> None:
    model, tokenizer = loaded
    prompt = tokenizer("Q: How can I keep vegetables fresh?\nA:", return_tensors="pt")

    def answer() -> str:
        out = model.generate(**prompt, max_new_tokens=24, do_sample=False, repetition_penalty=1.1)
        return str(tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    plain = answer()
    with lape.steer(model, neurons, stats=stats, source="en", to="zh"):
        steered = answer()
    assert sum(ch.isascii() for ch in plain) > 0.9 * len(plain)
    assert sum("一" <= ch <= "鿿" for ch in steered) > 0.5 * len(steered)
    assert answer() == plain
