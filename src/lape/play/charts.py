"""Charts of the share of each language's neurons that fire, token by token: inline SVG, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lape.play.names import short_name
from lape.play.session import Answer, Answers

_WIDTH, _HEIGHT = 100.0, 100.0


def chart(answers: Answers, side: str, languages: Sequence[str]) -> str:
    """One answer's shares: a line a language over its tokens, its usual level dotted, and where edits acted in grey."""
    answer: Answer = getattr(answers, side)
    if not answer.tokens:
        return '<figure class="lape-chart lape-waiting" aria-hidden="true"></figure>'
    bands = (
        "".join(_band(answers, k, len(answer.tokens)) for k in range(len(answer.tokens))) if side == "steered" else ""
    )
    lines = "".join(_usual(answers, language) + _line(answers, answer, language) for language in languages)
    marks = "".join(f"<span>{mark}%</span>" for mark in (100, 50, 0))
    return (
        f'<figure class="lape-chart"><div class="lape-axis" aria-hidden="true">{marks}</div>'
        f'<svg role="img" aria-label="{escape(_described(answers, answer, languages))}" '
        f'viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none">{_GRID}{bands}{lines}</svg>'
        f"<figcaption>token 1 to {len(answer.tokens)}</figcaption></figure>"
    )


_GRID = "".join(
    f'<line class="lape-grid" x1="0" x2="{_WIDTH:g}" y1="{y:g}" y2="{y:g}"/>' for y in (0, _HEIGHT / 2, _HEIGHT)
)


def legend(answers: Answers, languages: Sequence[str]) -> str:
    """What the lines and the grey mean."""
    keys = "".join(
        f'<li class="lape-{answers.role(language)}"><svg aria-hidden="true" viewBox="0 0 30 8">'
        f'<line class="lape-line" x1="0" x2="30" y1="4" y2="4"/></svg>{escape(short_name(language))} neurons'
        f"{_means(answers, language)}</li>"
        for language in languages
    )
    return (
        f'<ul class="lape-legend" aria-label="What the charts show">{keys}'
        '<li><svg aria-hidden="true" viewBox="0 0 30 8"><line class="lape-usual" x1="0" x2="30" y1="4" y2="4"/></svg>'
        "dotted: their mean in recorded text of their language</li>"
        '<li><svg aria-hidden="true" viewBox="0 0 30 8"><rect class="lape-band" width="30" height="8" opacity="1"/></svg>'
        "grey: where the model was edited</li></ul>"
    )


def strength_at(answers: Answers, k: int) -> float:
    """How much of an edit acts while token k of an answer (from 0) is read, 0 to 1; the first generated position is the prompt's last."""
    steer = answers.asked.steer
    position = k + 1
    if steer.tokens == "prompt" or (steer.first is not None and position >= steer.first):
        return 0.0
    return float(steer.fade**position)


def _band(answers: Answers, k: int, tokens: int) -> str:
    strength = strength_at(answers, k)
    if strength == 0:
        return ""
    step = _WIDTH / tokens
    return f'<rect class="lape-band" x="{k * step:.2f}" y="0" width="{step:.2f}" height="{_HEIGHT:g}" opacity="{strength:.2f}"/>'


def _line(answers: Answers, answer: Answer, language: str) -> str:
    k, step = answers.languages.index(language), _WIDTH / len(answer.tokens)
    points = [f"{(i + 0.5) * step:.2f},{_HEIGHT * (1 - token.shares[k]):.2f}" for i, token in enumerate(answer.tokens)]
    if len(points) == 1:  # a line needs two ends
        y = points[0].split(",")[1]
        points = [f"0,{y}", f"{_WIDTH:g},{y}"]
    return f'<polyline class="lape-line lape-{answers.role(language)}" points="{" ".join(points)}"/>'


def _usual(answers: Answers, language: str) -> str:
    y = _HEIGHT * (1 - answers.usual[answers.languages.index(language)])
    return f'<line class="lape-usual lape-{answers.role(language)}" x1="0" x2="{_WIDTH:g}" y1="{y:.2f}" y2="{y:.2f}"/>'


def _described(answers: Answers, answer: Answer, languages: Sequence[str]) -> str:
    """The chart in words."""
    means = (f"{short_name(one)} {answer.mean(answers.languages.index(one)):.0%}" for one in languages)
    return f"Share of neurons that fire on each of {len(answer.tokens)} tokens; means: {', '.join(means)}."


def _means(answers: Answers, language: str) -> str:
    """The mean share of both answers."""
    k = answers.languages.index(language)
    sides = {"unsteered": answers.unsteered, "steered": answers.steered}
    means = [f"{mean:.0%} {side}" for side, answer in sides.items() if (mean := answer.mean(k)) is not None]
    return f": mean {', '.join(means)}" if means else ""
