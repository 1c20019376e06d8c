"""How a question about a passage is put: passage, question and answer in a fixed frame of the language, after examples."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lape.data.language_id import base
from lape.errors import OptionError
from lape.experiments.answering.squad import Question
from lape.measure.controls import stream
from lape.measure.prompts import WORDS, chat

PASSAGE = {
    "en": "Passage",
    "zh": "文章",
    "fr": "Passage",
    "es": "Texto",
    "vi": "Đoạn văn",
    "id": "Bacaan",
    "ja": "文章",
    "de": "Text",
    "ru": "Текст",
    "ar": "النص",
    "ko": "지문",
}
"""What the passage is called; the words for question and answer are those of `lape.measure.prompts.WORDS`."""


def has_frame(language: str) -> bool:
    """Whether a language's own words are known; others are asked with the English ones."""
    return base(language) in PASSAGE


def passage_prompt(tokenizer: Any, question: Question, language: str, shots: Sequence[Question] = ()) -> str:
    """The prompt's text, without the tokenizer's own special tokens; `shots` come first, each with its first answer.

    A chat model sees passage and question as the user's turn, in its own template.
    """
    if getattr(tokenizer, "chat_template", None):
        return chat(
            tokenizer,
            [(_asked(shot, language), shot.answers[0]) for shot in shots] + [(_asked(question, language), "")],
        )
    answer = WORDS[_words(language)].answer
    shown = [f"{_asked(shot, language)}\n{answer}: {shot.answers[0]}\n\n" for shot in shots]
    return "".join([*shown, f"{_asked(question, language)}\n{answer}:"])


def _asked(question: Question, language: str) -> str:
    words = _words(language)
    return f"{PASSAGE[words]}: {question.context.strip()}\n{WORDS[words].question}: {question.text.strip()}"


def _words(language: str) -> str:
    return base(language) if has_frame(language) else "en"


def shots_for(question: Question, questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Random questions, each of another article, none of the asked one's. In parallel files the same for every language.

    Raises OptionError where there are too few articles.
    """
    generator = random.Random(stream(seed, question.number))
    others: dict[int, list[Question]] = {}
    for one in questions:
        if one.article != question.article:
            others.setdefault(one.article, []).append(one)
    if len(others) < count:
        raise OptionError(
            f"An example for each question must come from another article, and there are {len(others)} others. Expected {count}: ask for fewer shots."
        )
    return [generator.choice(others[article]) for article in generator.sample(list(others), count)]


def first_line(answer: str) -> str:
    """The first line of an answer that holds anything."""
    return next((line.strip() for line in answer.splitlines() if line.strip()), "")


def spread(questions: Sequence[Question], most: int | None) -> list[Question]:
    """At most so many questions, evenly spread over the file."""
    if most is None or most >= len(questions):
        return list(questions)
    return [questions[k * len(questions) // most] for k in range(most)]
