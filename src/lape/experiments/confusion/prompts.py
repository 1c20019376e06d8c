"""What a model is asked, and in which language it should answer: bundled prompts, files of one's own, the Language Confusion Benchmark's test sets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lape.data import samples
from lape.data.languages import tag
from lape.errors import TextError
from lape.experiments.confusion.lines import Row, files_of, language_in, read_lines, text_in
from lape.measure.prompts import Asking, Message, checked_messages, language_name, wished

CROSSLINGUAL, MONOLINGUAL = "crosslingual", "monolingual"
"""The benchmark's tasks: asked in another language for an answer in this one, and asked in it."""
OURS = "lape"
"""The source of the bundled questions."""
T = TypeVar("T")
_EXPECTED = 'Expected lines such as {"prompt": "…", "language": "ko"} or {"messages": […], "language": "ko"}.'
_LETTERS = re.compile(r"\w+")


@dataclass(frozen=True)
class Prompt:
    """Something that a model is asked, and the language that the answer should be in.

    Example:
        >>> from lape.experiments.confusion.prompts import Prompt
        >>> Prompt("Why is the sky blue?", "ko", system="Always answer in Korean.").task
        ''
    """

    text: str
    """What the user says last."""
    language: str
    task: str = ""
    source: str = ""
    """Where it is from."""
    question: str = ""
    """Which question it is: what has the same name is the same question, in another language or other words."""
    messages: tuple[Message, ...] = ()
    """The whole conversation; none of a prompt that stands alone."""
    system: str | None = None
    """What the system is told here."""


def default_prompts(languages: Sequence[str], most: int | None = None) -> list[Prompt]:
    """The bundled prompts that nothing is reported on elsewhere: 104 in English that ask for each language, and questions in each language that has some.

    In English: 40 requests with the wish in various places, and 64 questions with it at the end. In the language: the same 64 questions in those of
    `samples.LANGUAGES`, 24 of them in those of `samples.FURTHER`. `most`: of each task and language.

    Example:
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> prompts = default_prompts(["fr", "ko"], most=2)
        >>> [(one.task, one.language) for one in prompts][:5]
        [('crosslingual', 'fr'), ('crosslingual', 'fr'), ('monolingual', 'fr'), ('monolingual', 'fr'), ('crosslingual', 'ko')]
        >>> prompts[1].text
        'What might happen if all the bees suddenly disappeared? Answer in French.'
    """
    found = []
    for language in map(tag, languages):
        asked = []
        if language != "en":
            asked = [(CROSSLINGUAL, f"request {k}", one) for k, one in enumerate(_requests(language))]
            wish = wished("en", language, Asking(wish="source"))
            asked += [(CROSSLINGUAL, str(k), f"{one} {wish}") for k, one in enumerate(_questions("en"))]
        asked += [(MONOLINGUAL, str(k), one) for k, one in enumerate(_questions(language))]
        found += [Prompt(text, language, task, OURS, f"{OURS} {name}") for task, name, text in asked]
    return found if most is None else _spread(found, most)


def _requests(language: str) -> list[str]:
    return samples.requests(language_name(language, "en"))


def _questions(language: str) -> list[str]:
    """Those for development, then those to choose by, as far as there are some in a language."""
    parts = (("development", samples.EVERY), ("choosing", samples.LANGUAGES))
    return [
        one
        for part, known in parts
        if language in known
        for one in samples.questions(part, languages=[language])[language]  # type: ignore[arg-type]
    ]


def read_prompts(path: str | Path, languages: Sequence[str] | None = None, most: int | None = None) -> list[Prompt]:
    """Prompts of a .jsonl or .csv file, or of a folder with the test sets of the Language Confusion Benchmark (TASK/SOURCE/LANGUAGE.csv).

    A line that cannot be asked is refused with its number: unlike a log, a file of prompts is written by hand, and none should be missing unnoticed.

    A line has `prompt` or `messages`, the wanted `language`, and if need be `task`, `source`, `question` (its name, for rephrasings of the same) and
    `system`. The benchmark's rows are rephrasings of fewer questions (34 of okapi, 46 of sharegpt), which are told apart by their `phrasing`. `languages`:
    those alone; where just one is named, lines need not name theirs. `most`: questions of each task, source and language, in one phrasing each, by turns.

    Raises FileError for what cannot be read, TextError for a line that holds no prompt or no language.

    Example:
        >>> from lape.experiments.confusion.prompts import read_prompts
        >>> with open("mine.jsonl", "w") as file:
        ...     _ = file.write('{"prompt": "Explain photosynthesis.", "language": "fr", "system": "Answer in French."}')
        >>> read_prompts("mine.jsonl")
        [Prompt(text='Explain photosynthesis.', language='fr', task='', source='mine', question='mine fr 0', messages=(), system='Answer in French.')]
    """
    path = Path(path)
    wanted = [tag(one) for one in languages or ()]
    found = [prompt for file in files_of(path) for prompt in _prompts(path, file, wanted)]
    chosen = [one for one in found if not wanted or one.language in wanted]
    if not chosen:
        there = ", ".join(dict.fromkeys(one.language for one in found))
        raise TextError(f"{path} has no prompts in {', '.join(wanted)}. Expected some of {there}.")
    return chosen if most is None else _spread(chosen, most)


def _prompts(path: Path, file: Path, wanted: Sequence[str]) -> Iterator[Prompt]:
    """The prompts of one file, each with a name for its question."""
    inside = file.relative_to(path).parts[:-1] if path.is_dir() else ()
    questions = Questions()
    for line in read_lines(file):
        try:
            row = line.read()
            one = _prompt(row, wanted)
        except TextError as error:
            raise TextError(f"{line}: {error}. {_EXPECTED}") from error
        task = one.task or next((part for part in inside if part in (CROSSLINGUAL, MONOLINGUAL)), "")
        task = task or (CROSSLINGUAL if row.get("phrasing") is not None else "")
        one = replace(one, task=task, source=one.source or (inside[-1] if inside else file.stem))
        yield (
            one
            if one.question
            else replace(one, question=questions.name(one.text, row, task, one.source, one.language))
        )


class Questions:
    """Names of questions: what is the same question, in other words or for another language, has the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)

    def name(self, text: str, row: Row, task: str, source: str, language: str) -> str:
        """By its source, and but for the benchmark's cross-lingual ones, which are the same for every language, its language; then its number there."""
        shared = task == CROSSLINGUAL and row.get("phrasing") is not None
        key = source, "" if shared else language
        known = self._known[key]
        number = known.setdefault(without_wish(text, row, language), len(known))
        return " ".join([*filter(None, key), str(number)])


def _prompt(row: Row, wanted: Sequence[str]) -> Prompt:
    """The prompt of a row. Raises TextError with the reason where there is none."""
    messages = checked_messages(row["messages"], "messages") if row.get("messages") is not None else []
    text = messages[-1]["content"] if messages else text_in(row, "prompt")
    if text is None:
        raise TextError("it holds no prompt")
    language = language_in(row, wanted)
    parts = {name: text_in(row, name) or "" for name in ("task", "source", "question")}
    return Prompt(text.strip(), language, **parts, messages=tuple(messages), system=text_in(row, "system"))


def without_wish(prompt: str, row: Row, language: str) -> str:
    """The letters of a prompt without the benchmark's wish for a language, which is the same in all phrasings of a question."""
    phrasing = row.get("phrasing")
    if isinstance(phrasing, str):
        wish = phrasing.replace("{language_requested}", language_name(language, "en"))
        prompt = re.sub(re.escape(wish), "", prompt, count=1, flags=re.IGNORECASE)
    return "".join(_LETTERS.findall(prompt.lower()))


def evenly(things: Sequence[T], most: int) -> list[T]:
    """At most so many of some things, evenly spread over them, in their order."""
    return [things[int(k * len(things) / most)] for k in range(most)] if len(things) > most else [*things]


def _spread(prompts: Iterable[Prompt], most: int) -> list[Prompt]:
    """At most so many questions of each task, source and language, evenly spread, in one phrasing each, by turns."""
    groups: dict[tuple[str, str, str], dict[str, list[Prompt]]] = {}
    for one in prompts:
        groups.setdefault((one.task, one.source, one.language), {}).setdefault(one.question, []).append(one)
    found = []
    for questions in groups.values():
        each = [phrasings[number % len(phrasings)] for number, phrasings in enumerate(questions.values())]
        found += evenly(each, most)
    return found
