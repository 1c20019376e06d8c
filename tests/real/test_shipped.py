"""The switch shipped, on the real embedded model: read by peft, an adapter is the edit; it writes the language, and strangers' tools load it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

import lape
from lape.data import samples
from lape.data.language_id import lingua
from lape.edit.steer import SHIPPED, steering
from lape.measure.answer_quality import in_language
from lape.measure.bench import named_sets
from lape.measure.generation import GenerationOptions, generate
from lape.measure.prompts import ask, cut
from lape.values.stats import ActivationStats

QUESTIONS = samples.questions("development")["en"][:8]


@pytest.fixture(scope="module")
def precise() -> tuple[Any, Any]:
    return lape.load("sample", dtype="float32")


def read_with_peft(folder: Path, run: Any) -> Any:
    """What `run` gives of the model with an adapter; the model itself is as before."""
    model, _ = lape.load("sample", dtype="float32")
    return run(PeftModel.from_pretrained(model, folder).eval())


def test_off_and_scale_are_exact_adapters(precise: tuple[Any, Any], stats: ActivationStats, tmp_path: Path) -> None:
    model, tokenizer = precise
    neurons = named_sets(stats, "difference:100")
    edits = [lape.Off(neurons["fr"]), lape.Scale(neurons["zh"], 1.5)]
    folder = lape.export(model, edits, tmp_path / "out", format="lora", tokenizer=tokenizer)
    ids = tokenizer("Bonjour, je voudrais savoir comment on fait du pain.", return_tensors="pt").input_ids

    @torch.inference_mode()
    def logits(one: Any) -> torch.Tensor:
        return one(input_ids=ids).logits

    plain = logits(model)
    with lape.edited(model, edits):
        expected = logits(model)
    spread = float(expected.max() - expected.min())
    found = read_with_peft(folder, logits)
    assert float((found - expected).abs().max()) < 1e-4 * spread
    assert float((plain - expected).abs().max()) > 1e-2 * spread


def test_the_shipped_switch_is_near_the_edit_and_writes_the_language(
    loaded: tuple[Any, Any], stats: ActivationStats, tmp_path: Path
) -> None:
    model, tokenizer = loaded
    edits = steering(named_sets(stats, "difference:100"), stats, replace(SHIPPED, strength=1.5), to="fr")
    how = {"tokenizer": tokenizer, "texts": samples.texts("record"), "tokens": 1500}
    folder = lape.export(model, edits, tmp_path / "to-fr", format="lora", **how)
    said = json.loads((folder / "lape.json").read_text())
    assert said["rank"] == 1
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 300_000
    for row in said["fit"]:
        limit = 0.01 if row["language"] == "fr" and row["read_as"] == "text" else 0.1
        assert row["kl"] <= max(limit, 0.05 * row["edit"]), row
    prompts = [ask(tokenizer, one, source="en", target="fr") for one in QUESTIONS]
    identify = lingua(samples.LANGUAGES)

    def in_french(one: Any) -> int:
        answers = [
            cut(text, target="fr") for text in generate(one, tokenizer, prompts, GenerationOptions(new_tokens=24))
        ]
        return sum(in_language(text, guess, "fr") for text, guess in zip(answers, identify(answers), strict=True))

    assert in_french(model) <= 1
    assert in_french(PeftModel.from_pretrained(lape.load("sample")[0], folder).eval()) >= 6
