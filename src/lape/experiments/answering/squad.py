"""Questions about passages, from a file in the format of SQuAD and XQuAD (Rajpurkar et al. 2016; Artetxe et al. 2020)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from lape.errors import FileError, TextError

_FORM = '{"data": [{"paragraphs": [{"context": …, "qas": [{"id": …, "question": …, "answers": [{"text": …}]}]}]}]}'


@dataclass(frozen=True)
class Question:
    """A question about a passage that holds the answer."""

    id: str
    number: int
    """Its place among the file's questions: in parallel files the same number is the same question."""
    article: int
    """The place of its article in the file."""
    passage: int
    """The place of its passage in the file."""
    context: str
    text: str
    answers: tuple[str, ...]
    """What counts as right: one text or more, none empty."""


def read_squad(path: str | Path) -> list[Question]:
    """All questions of a file that have an answer, in order.

    Raises FileError for a file that is not there or no JSON; TextError for JSON of another form, saying what is missing where,
    for an id that comes twice, and for a file without any such question.
    """
    path = Path(path)
    found = list(_questions(_parsed(path), str(path)))
    if not found:
        raise TextError(f"{path} holds no question with an answer. Expected SQuAD's form: {_FORM}.")
    (most, times), *_ = Counter(question.id for question in found).most_common(1)
    if times > 1:
        raise TextError(f"{path}: the id {most!r} comes {times} times. Expected each question to have its own.")
    return found


def _parsed(path: Path) -> Any:
    if not path.is_file():
        raise FileError(f"There is no file {path}. Expected JSON in SQuAD's form: {_FORM}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FileError(f"{path} is not JSON: {error}. Expected SQuAD's form; fetch the file again.") from error


def _questions(whole: Any, path: str) -> Iterator[Question]:
    number, passages = 0, count()
    for article, (one, at) in enumerate(_items(whole, "data", path)):
        for paragraph, within in _items(one, "paragraphs", f"{at}"):
            passage = next(passages)
            context = _text(paragraph, "context", within)
            for asked, place in _items(paragraph, "qas", within):
                texts = [_text(answer, "text", where).strip() for answer, where in _items(asked, "answers", place)]
                answers = tuple(dict.fromkeys(text for text in texts if text))
                if answers:
                    id, text = _text(asked, "id", place), _text(asked, "question", place)
                    yield Question(id, number, article, passage, context, text, answers)
                    number += 1


def _items(whole: Any, name: str, where: str) -> list[tuple[Any, str]]:
    """A list in an object, each item with the words that say where it is."""
    items = _field(whole, name, where)
    if not isinstance(items, list):
        raise TextError(f"{where}: {name!r} is not a list. Expected SQuAD's form: {_FORM}.")
    return [(item, f"{where}, {name}[{k}]") for k, item in enumerate(items)]


def _text(whole: Any, name: str, where: str) -> str:
    text = _field(whole, name, where)
    if isinstance(text, int) and name == "id":
        return str(text)
    if not isinstance(text, str):
        raise TextError(f"{where}: {name!r} is not a text. Expected SQuAD's form: {_FORM}.")
    return text


def _field(whole: Any, name: str, where: str) -> Any:
    if not isinstance(whole, dict) or name not in whole:
        raise TextError(f"{where}: {name!r} is missing. Expected SQuAD's form: {_FORM}.")
    return whole[name]
