"""What the page says, as HTML: both answers with charts as inline SVG, no script and no network. `page.html.j2` says how, and escapes all text."""

from __future__ import annotations

from importlib.resources import files as resources
from typing import Any

from jinja2 import Environment

from lape.play.names import short_name
from lape.play.session import Answers
from lape.values.stats import ActivationStats


def _macros() -> Any:
    environment = Environment(autoescape=True)
    environment.filters |= {"name": short_name, "percent": "{:.0%}".format}
    return environment.from_string((resources("lape.play") / "page.html.j2").read_text(encoding="utf-8")).module


_MACROS = _macros()
EMPTY = str(_MACROS.empty())
"""The page before anything is asked."""


def header(stats: ActivationStats, model: str, run: str) -> str:
    """What is played with. `model`, `run`: as they were named."""
    recorded = stats.manifest.get("model", {}).get("id", model)
    name = model if recorded == model else f"{recorded} ({model})"
    return str(_MACROS.header(name, len(stats.space), run, stats.languages))


def page(answers: Answers, shade: str = "target") -> str:
    """Both answers side by side, each with its chart, and the numbers below. `shade`: one of `SHADES`, or a language."""
    asked = answers.asked
    shaded = {"target": asked.target, "source": asked.source}.get(shade, shade)
    charted = dict.fromkeys(one for one in (asked.source, asked.target, shaded) if one in answers.languages)
    return str(_MACROS.page(answers, shaded, list(charted)))


def alert(text: str) -> str:
    """What went wrong, in words."""
    return str(_MACROS.alert(text))


def status(text: str) -> str:
    """What is going on, for eyes and screen readers."""
    return str(_MACROS.status(text))
