"""Both answers as HTML: tokens shaded by the share of a language's neurons that fire on them. All text is escaped."""

from __future__ import annotations

from html import escape

from lape.play.charts import chart, legend
from lape.play.names import short_name
from lape.play.session import Answer, Answers

SHADES = {"target": "The language steered to", "source": "The prompt's language"}
"""Choices of whose neurons shade the tokens, beside the languages themselves."""
_TITLES = {"unsteered": "Unsteered", "steered": "Steered"}

EMPTY = (
    '<section class="lape lape-answers" aria-label="Answers"><div class="lape-two">'
    + "".join(
        f'<article class="lape-card"><header><h2>{title}</h2></header><div class="lape-text lape-empty">{what}</div></article>'
        for title, what in (
            ("Unsteered", "The model's own answer."),
            ("Steered", "Its answer with the source's neurons off and the target's on."),
        )
    )
    + "</div></section>"
)
"""The page before anything is asked."""


def page(answers: Answers, shade: str = "target") -> str:
    """Both answers side by side, each with its chart, and the numbers below. `shade`: one of `SHADES`, or a language."""
    shaded = _shaded(answers, shade)
    cards = "".join(_card(answers, side, shaded) for side in _TITLES)
    return (
        f'<section class="lape lape-answers" aria-label="Answers">{_heading(answers, shaded)}'
        f'<div class="lape-two">{cards}</div>{legend(answers, _charted(answers, shaded))}{_numbers(answers)}</section>'
    )


def alert(text: str) -> str:
    """What went wrong, in words."""
    return f'<div role="alert" class="lape lape-alert">{escape(text)}</div>'


def status(text: str) -> str:
    """What is going on, for eyes and screen readers."""
    return f'<div role="status" class="lape lape-status">{escape(text)}</div>'


def _shaded(answers: Answers, shade: str) -> str:
    """The language whose neurons shade the tokens."""
    asked = answers.asked
    return {"target": asked.target, "source": asked.source}.get(shade, shade)


def _charted(answers: Answers, shaded: str) -> list[str]:
    wanted = dict.fromkeys((answers.asked.source, answers.asked.target, shaded))
    return [language for language in wanted if language in answers.languages]


def _heading(answers: Answers, shaded: str) -> str:
    asked = answers.asked
    to = f"{short_name(asked.source)} → {short_name(asked.target)}"
    how = f"{asked.method}, {asked.steer.how}, strength {asked.steer.strength:g}"
    return (
        f'<div class="lape-heading"><p class="lape-prompt" dir="auto" lang="{escape(asked.source)}">{escape(asked.prompt)}</p>'
        f'<p class="lape-how">{escape(to)} · {escape(how)}</p>{_scale(answers, shaded)}</div>'
    )


def _scale(answers: Answers, shaded: str) -> str:
    """What the shades mean."""
    name = escape(short_name(shaded))
    if shaded not in answers.languages:
        return f'<p class="lape-how">There are no {name} neurons among those chosen, so no token is shaded.</p>'
    count = answers.sizes[answers.languages.index(shaded)]
    return (
        f'<p class="lape-scale lape-{answers.role(shaded)}">Shade: share of the {count:,} {name} neurons that fire on a token '
        '<span class="lape-ends">0%<span class="lape-ramp" aria-hidden="true"></span>100%</span></p>'
    )


def _card(answers: Answers, side: str, shaded: str) -> str:
    answer: Answer = getattr(answers, side)
    charted = _charted(answers, shaded)
    return (
        f'<article class="lape-card" id="{side}" aria-labelledby="{side}-title">'
        f'<header><h2 id="{side}-title">{_title(answers, side)}</h2>{_language(answers, answer)}</header>'
        f"{_text(answers, answer, shaded)}{chart(answers, side, charted)}</article>"
    )


def _title(answers: Answers, side: str) -> str:
    to = f" to {escape(short_name(answers.asked.target))}" if side == "steered" else ""
    return f"{_TITLES[side]}{to}"


def _language(answers: Answers, answer: Answer) -> str:
    """The language that an answer seems to be in."""
    if answer.language is None:
        said = "" if not answers.done else "language not told"
        return f'<span class="lape-told">{said}</span>'
    name = escape(short_name(answer.language))
    return (
        f'<span class="lape-told lape-{answers.role(answer.language)}" data-language="{escape(answer.language)}">'
        f"<i aria-hidden='true'></i>{name}, {answer.certainty:.0%} certain</span>"
    )


def _text(answers: Answers, answer: Answer, shaded: str) -> str:
    k = answers.languages.index(shaded) if shaded in answers.languages else None
    spans, begun = [], False
    for token in answer.tokens:
        text = token.text if begun else token.text.lstrip()
        if not text:
            continue
        begun = True
        share = None if k is None else token.shares[k]
        shade = "" if share is None else f' style="--share:{share:.3f}" title="{share:.0%}"'
        spans.append(f"<span{shade}>{escape(text)}</span>")
    inside = "".join(spans).rstrip() or '<span class="lape-empty">…</span>'
    language = f' lang="{escape(answer.language)}"' if answer.language else ""
    return f'<div class="lape-text lape-{answers.role(shaded)}" dir="auto"{language}>{inside}</div>'


def _numbers(answers: Answers) -> str:
    """The shares as tables, for whoever cannot see shades."""
    if not answers.done:
        return ""
    tables = "".join(_table(answers, side) for side in _TITLES)
    return f'<details class="lape-numbers"><summary>All shares in numbers</summary><div class="lape-two">{tables}</div></details>'


def _table(answers: Answers, side: str) -> str:
    answer: Answer = getattr(answers, side)
    head = "".join(f'<th scope="col">{escape(language)}</th>' for language in answers.languages)
    rows = "".join(
        f'<tr><th scope="row">{escape(_visible(token.text))}</th>'
        + "".join(f"<td>{share:.0%}</td>" for share in token.shares)
        + "</tr>"
        for token in answer.tokens
    )
    usual = "".join(f"<td>{usual:.0%}</td>" for usual in answers.usual)
    return (
        f'<div class="lape-scroll" role="region" tabindex="0" aria-label="{_TITLES[side]}: shares in numbers"><table>'
        f"<caption>{_TITLES[side]}: share of each language's neurons that fire</caption>"
        f'<thead><tr><th scope="col">Token</th>{head}</tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr><th scope="row">Mean in the language\'s own recorded text</th>{usual}</tr></tfoot></table></div>'
    )


def _visible(text: str) -> str:
    """A token with what cannot be seen made visible."""
    return text.replace("\n", "⏎").replace(" ", "·") if text else "∅"
