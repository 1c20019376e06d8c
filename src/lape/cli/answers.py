"""Answers of a model, unsteered and steered: shown with the language that each seems to be in, counted, and written as JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from lape.cli.asked import Question
from lape.cli.common import Flowing, out
from lape.data.language_id import Teller
from lape.signs import many
from lape.store import files

CONDITIONS = ("unsteered", "steered")


@dataclass(frozen=True)
class Answer:
    """One answer to a prompt."""

    prompt: str
    source: str
    target: str
    condition: str
    answer: str
    language: str | None
    """The language that it seems to be in; None where none is certain, or none could be told."""
    certainty: float
    cut: bool
    """Whether it was ended by the number of new tokens."""
    repeats: bool
    """Whether it begins by repeating the prompt."""

    def remark(self, most: int, *, told: bool) -> str:
        """What is to be said of it."""
        language = f"{self.language}, {self.certainty:.0%} certain" if self.language else "language uncertain"
        language = language if self.answer else "nothing was written"
        parts = [language if told else "language not identified (needs the extra lid)"]
        parts += ["repeats the prompt"] if self.repeats else []
        parts += [f"cut after {many(most, 'token')} (--new-tokens)"] if self.cut else []
        return "; ".join(parts)


def judged(
    question: Question, pair: tuple[str, str], condition: str, answer: str, names: Teller, *, cut: bool
) -> Answer:
    """An answer with what can be told of it. `pair`: the languages it was steered from and to."""
    answer = answer.strip()
    guess, begun = names(answer), _plain(question.text)
    repeats = bool(begun) and _plain(answer).startswith(begun)
    return Answer(question.text, *pair, condition, answer, guess.language, round(guess.certainty, 4), cut, repeats)


def _plain(text: str) -> str:
    """Words alone, in lower case."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def show_prompt(question: Question, source: str, target: str) -> None:
    """Say what was asked, and what it is steered from and to."""
    earlier = len(question.messages) - 1
    before = f" after {many(earlier, 'message')}" if earlier > 0 else ""
    out.print(Text.assemble((question.text, "bold"), (f"  ({source} → {target}{before})", "dim")))


def show(answer: Answer, remark: str) -> None:
    """Print a whole answer, and what is to be said of it."""
    streamed(answer.condition, _whole(answer.answer))
    show_remark(answer.condition, remark)


def show_remark(condition: str, remark: str) -> None:
    """Print what is to be said of an answer."""
    out.print(Text(f"  {condition} answer: {remark}", style="dim"))


def _whole(text: str) -> Generator[str, None, bool]:
    yield text
    return False


def streamed(label: str, pieces: Generator[str, None, bool]) -> tuple[str, bool]:
    """Print an answer as it comes, broken between words on a terminal. Gives it, and whether it was cut."""
    out.print(Text(f"{label}:", style="green"), end=" ")
    answer, flow, cut = "", Flowing(len(label) + 2), False
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            cut = end.value
            break
        piece = piece if answer else piece.lstrip()
        answer += piece
        out.print(flow(piece), end="", soft_wrap=True)
    rest = flow.rest()
    out.print(rest, end="" if (rest or answer).endswith("\n") else "\n", soft_wrap=True)
    return answer, cut


def counted(answers: Sequence[Answer]) -> str:
    """How many answers are in the language that they were steered to."""
    parts = []
    for condition in CONDITIONS:
        some = [one for one in answers if one.condition == condition]
        parts.append(f"{condition} {sum(one.language == one.target for one in some)} of {len(some)}")
    return f"Answers in {answers[0].target}: {', '.join(parts)}."


def save(path: Path, answers: Sequence[Answer], questions: Sequence[Question], options: dict[str, Any]) -> None:
    """Write one JSON object per line: the answers, for each question under each condition in turn, with what was asked and all options."""
    lines = []
    for at, one in enumerate(answers):
        messages = [*questions[at // len(CONDITIONS)].messages]
        whole = asdict(one) | ({"messages": messages} if messages else {}) | {"options": options}
        lines.append(json.dumps(whole, ensure_ascii=False))
    files.write(path, lambda temporary: temporary.write_text("\n".join(lines) + "\n", encoding="utf-8"))
