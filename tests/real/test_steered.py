"""Steering the real embedded model: it must write the language that was asked for, and nothing else may do so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import lape
from lape.cli import run
from lape.data import samples
from lape.data.language_id import Identifier, lingua
from lape.edit.edit import Off, Scale, edited
from lape.edit.steer import SteerOptions
from lape.measure.answer_quality import in_language, on_topic
from lape.measure.bench import Bench
from lape.measure.generation import GenerationOptions
from lape.measure.methods import CEILING, NONE, Setting, following
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

COUNT = 6
TARGETS = ("fr", "zh", "ja", "vi")
SETTING = Setting("neurons", "where the answer begins", sets="difference:100", steer=SteerOptions())


@pytest.fixture(scope="module")
def identify() -> Identifier:
    return lingua(samples.LANGUAGES)


@pytest.fixture(scope="module")
def questions() -> dict[str, list[str]]:
    return {language: asked[:COUNT] for language, asked in samples.questions("development").items()}


@pytest.fixture(scope="module")
def bench(loaded: tuple[Any, Any], stats: ActivationStats) -> Bench:
    return Bench(*loaded, stats, samples.texts("record"), GenerationOptions(new_tokens=24))


@pytest.fixture(scope="module")
def precise() -> tuple[Any, Any]:
    return lape.load("sample", dtype="float32")


def share(answers: Sequence[str], language: str, identify: Identifier) -> float:
    guesses = zip(answers, identify(answers), strict=True)
    return sum(in_language(answer, guess, language) for answer, guess in guesses) / len(answers)


@pytest.mark.parametrize("target", TARGETS)
def test_steered_answers_are_in_the_target_language(
    bench: Bench, questions: dict[str, list[str]], identify: Identifier, target: str
) -> None:
    assert share(bench.answers(SETTING, questions, "en", target), target, identify) >= 0.65


def test_unedited_answers_are_in_the_questions_language(
    bench: Bench, questions: dict[str, list[str]], identify: Identifier
) -> None:
    answers = bench.answers(NONE, questions, "en", "fr")
    assert share(answers, "en", identify) >= 0.8
    assert share(answers, "fr", identify) == 0


@pytest.mark.parametrize("control", ["random", "other"])
def test_controls_do_not_write_the_target(
    bench: Bench, questions: dict[str, list[str]], identify: Identifier, control: str
) -> None:
    setting = next(setting for setting in following(SETTING) if setting.family == control)
    assert share(bench.answers(setting, questions, "en", "fr"), "fr", identify) <= 0.2


def test_an_answer_asked_in_the_target_language_is_on_topic(bench: Bench, questions: dict[str, list[str]]) -> None:
    answers = bench.answers(CEILING, questions, "fr", "fr")
    verdicts = on_topic(
        bench.model, bench.tokenizer, bench.head, list(enumerate(answers)), questions["fr"], "fr", COUNT
    )
    assert sum(verdicts) >= 4 > 3 * COUNT / COUNT


def test_steering_a_batch_is_steering_each_alone(
    precise: tuple[Any, Any], stats: ActivationStats, questions: dict[str, list[str]]
) -> None:
    """In fp32, prompts of different lengths, left-padded."""
    some = {language: asked[:3] for language, asked in questions.items()}
    together = Bench(*precise, stats, None, GenerationOptions(new_tokens=8))
    alone = Bench(*precise, stats, None, GenerationOptions(new_tokens=8, batch=1))
    assert together.answers(SETTING, some, "en", "fr") == alone.answers(SETTING, some, "en", "fr")


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_exported_model_is_the_edited_one(
    loaded: tuple[Any, Any],
    precise: tuple[Any, Any],
    neurons: LanguageNeurons,
    tmp_path: Path,
    dtype: str,
    near: float,
) -> None:
    """Logits agree to 1e-5 of the largest in fp32; in bf16, where scaled columns are rounded, to 0.05."""
    model, tokenizer = precise if dtype == "float32" else loaded
    edits = [Off(neurons["zh"]), Scale(neurons["fr"] - neurons["zh"], 1.5)]
    exported, _ = lape.load(lape.export(model, edits, tmp_path / "out", tokenizer=tokenizer), dtype=dtype)
    ids = tokenizer("La maison est grande et le chat dort. 今天天气很好。", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        plain = model(ids).logits.float()
        with edited(model, edits):
            hooked = model(ids).logits.float()
        baked = exported(ids).logits.float()
    assert (baked - hooked).abs().max() <= near * hooked.abs().max()
    assert (plain - hooked).abs().max() > 10 * (baked - hooked).abs().max()


def test_the_command_shows_both_answers(
    stats: ActivationStats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats.save(tmp_path / "stats.safetensors")
    prompt = "How can I manage my time better?"
    assert run(["steer", "sample", prompt, "--to", "fr", "--run", str(tmp_path), "--new-tokens", "24"]) == 0
    shown = capsys.readouterr().out
    assert "(en → fr)" in shown
    assert "unsteered answer: en" in shown
    assert "steered answer: fr" in shown.replace("unsteered answer", "")
