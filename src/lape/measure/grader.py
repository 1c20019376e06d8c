"""A language model's opinion of an answer, on a scale, from any OpenAI-compatible endpoint. Off unless an endpoint is named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from lape.endpoint import Endpoint, Unanswered
from lape.errors import OptionError
from lape.measure.prompts import language_name

KEY = "LAPE_GRADER_KEY"
"""The environment variable that holds the endpoint's key, where it wants one; it is never written anywhere."""
TRIES = 4
"""How often an endpoint that is busy or breaks off is asked."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_AT_ONCE = 8


@dataclass(frozen=True)
class Scale:
    """Which grades there are, and how they are asked for."""

    lowest: int
    """Also the grade of an empty answer."""
    highest: int
    text: str
    """The file in `samples/` with what is asked: it names {language}, {question} and {answer}."""

    def grade(self, reply: str) -> int | None:
        """The first number of a reply, where it is one of the grades; else None: 7.5 is none, and 12 is neither 1 nor 2."""
        found = _NUMBER.search(reply)
        value = float(found.group().replace(",", ".")) if found else float("nan")
        return int(value) if value.is_integer() and self.lowest <= value <= self.highest else None


GRADES = Scale(0, 2, "grading.txt")
"""0 useless, 1 with mistakes, 2 good."""
MARKS = Scale(1, 10, "judging.txt")
"""1 to 10, the range of the paper's GPT-4 scores. Its prompt is not published: this one is ours, so numbers cannot be compared with it."""


@dataclass(frozen=True)
class Grader:
    """An endpoint and the model behind it that is asked."""

    url: str
    """Where `/chat/completions` lies below, such as http://127.0.0.1:8000/v1."""
    model: str
    scale: Scale = GRADES

    def grades(self, asked: Sequence[tuple[str, str]], target: str) -> list[int | None]:
        """A grade for each (question, answer) that was wanted in `target`; None where the reply held none of the scale.

        An empty answer has the lowest without being asked about. Raises OptionError for an endpoint that refuses or does not answer.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda one: self._grade(one[0], one[1], target), asked))

    def _grade(self, question: str, answer: str, target: str) -> int | None:
        if not answer.strip():
            return self.scale.lowest
        return self.scale.grade(self._reply(prompt(question, answer, target, self.scale)))

    def _reply(self, text: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": 8,
        }
        try:
            reply = Endpoint(self.url, KEY, TRIES).post("/chat/completions", body)
            return str(reply["choices"][0]["message"]["content"])
        except Unanswered as error:
            why = error.why
        except (KeyError, IndexError, TypeError):
            why = "its reply is not a chat completion"
        raise OptionError(
            f"The grader at {self.url} could not be used: {why}. Check grader_url, grader_model and {KEY}, or leave them out; finished answers are kept."
        )


def grader_of(options: Any, scale: Scale = GRADES) -> Grader | None:
    """The grader that options name by `grader_url` and `grader_model`, if they do."""
    url, model = options.grader_url, options.grader_model
    return Grader(url, model, scale) if url and model else None


def prompt(question: str, answer: str, target: str, scale: Scale = GRADES) -> str:
    """What a grader is asked: the scale's text, filled in."""
    pattern = files("lape.data.samples").joinpath(scale.text).read_text(encoding="utf-8")
    given = {"language": language_name(target, "en"), "question": question, "answer": answer}
    return re.sub(r"\{(language|question|answer)\}", lambda found: given[found.group(1)], pattern).strip()
