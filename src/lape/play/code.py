"""Copy as Python: a program that gives the steered answer of the page again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from lape.edit.steer import SteerOptions
from lape.model.load import ModelOptions
from lape.play.asking import Asked
from lape.values.stats import ActivationStats


def snippet(
    asked: Asked,
    stats: ActivationStats,
    model: str,
    run: str,
    loading: ModelOptions | None = None,
    system: str | None = None,
) -> str:
    """The program. `model`, `run`: as they were named where the page was started; `loading`: with which options; `system`: with which prompt."""
    amount, value = asked.amount(stats)
    source, target = (stats.canonical(one) for one in (asked.source, asked.target))
    lines = [
        "import lape",
        "from lape.measure.generation import GenerationOptions, generate",
        *([] if asked.bare else ["from lape.measure.prompts import ask, cut"]),
        "",
        f"model, tokenizer = lape.load({', '.join([repr(model), *_changed(loading or ModelOptions(), ModelOptions())])})",
        f"stats = lape.ActivationStats.load({run!r})",
        f"neurons = lape.identify(stats, {asked.method!r}, reliability=False, {amount}={value!r})",
        f"generation = GenerationOptions(new_tokens={asked.new_tokens}, repetition_penalty={asked.repetition_penalty!r})",
        f"prompt = {_prompt(asked, source, target, system)}",
        f"with lape.steer({', '.join(['model', 'neurons', f'{source=}', f'to={target!r}', *_changed(asked.steer, SteerOptions())])}):",
        "    (answer,) = generate(model, tokenizer, [prompt], generation)",
        f"print({'answer' if asked.bare else f'cut(answer, target={target!r})'})",
    ]
    return "\n".join(lines) + "\n"


def _prompt(asked: Asked, source: str, target: str, system: str | None) -> str:
    if asked.bare:
        return repr(asked.prompt)
    more = f", system={system!r}" if system else ""
    return f"ask(tokenizer, {asked.prompt.strip()!r}, source={source!r}, target={target!r}{more})"


def _changed(options: Any, usual: Any) -> list[str]:
    """The options that are not as usual, as keywords."""
    names = [field.name for field in fields(options)]
    return [f"{name}={getattr(options, name)!r}" for name in names if getattr(options, name) != getattr(usual, name)]
