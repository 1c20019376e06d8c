"""What a model is asked, and in which language it should answer: bundled prompts, files of one's own, the Language Confusion Benchmark's test sets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from lape.data import samples
from lape.data.languages import tag
from lape.errors import FileError, TextError
from lape.measure.prompts import Asking, Message, checked_messages, language_name, wished

CROSSLINGUAL, MONOLINGUAL = "crosslingual", "monolingual"
"""The benchmark's tasks: asked in another language for an answer in this one, and asked in it."""
OURS = "lape"
"""The source of the bundled questions."""
T = TypeVar("T")
Row: TypeAlias = Mapping[str, Any]
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


def files_of(path: Path) -> list[Path]:
    """A file, or every .csv of a folder. Raises FileError where there is none."""
    if path.is_dir():
        found = sorted(path.rglob("*.csv"))
        if not found:
            raise FileError(f"{path} holds no .csv. Expected the test sets of the benchmark, TASK/SOURCE/LANGUAGE.csv.")
        return found
    if not path.is_file():
        raise FileError(f"There is no file {path}. Expected a .jsonl or .csv file, or a folder of .csv files.")
    return [path]


def rows_of(path: Path) -> Iterator[tuple[str, Row]]:
    """Where, and what, of each line of a .jsonl file or row of a .csv. Raises FileError or TextError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise FileError(f"{path} is not UTF-8 text, or cannot be read. Expected a .jsonl or .csv file.") from error
    if path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 2):
            yield f"{path}, row {number},", {k: v for k, v in row.items() if k and v not in (None, "")}
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number},"
        try:
            found = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise TextError(f"{where} is not JSON. {_EXPECTED}") from error
        if not isinstance(found, dict):
            raise TextError(f"{where} is not an object. {_EXPECTED}")
        yield where, found


def text_in(row: Row, *names: str) -> str | None:
    """The first of some columns that holds text, as it is; None where none does."""
    return next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)


def _prompts(path: Path, file: Path, wanted: Sequence[str]) -> Iterator[Prompt]:
    """The prompts of one file, each with a name for its question."""
    inside = file.relative_to(path).parts[:-1] if path.is_dir() else ()
    questions = Questions()
    for where, row in rows_of(file):
        one = _prompt(where, row, wanted)
        task = one.task or next((part for part in inside if part in (CROSSLINGUAL, MONOLINGUAL)), "")
        task = task or (CROSSLINGUAL if "phrasing" in row else "")
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


def language_in(where: str, row: Row, wanted: Sequence[str], expected: str) -> str:
    """The language that a line wants an answer in: its own, or the only one that is wanted. Raises TextError where there is none."""
    named = text_in(row, "language") or (wanted[0] if len(wanted) == 1 else None)
    if named is None:
        raise TextError(f"{where} names no language for the answer. {expected} Or name one for all: languages=['ko'].")
    return tag(named)


def _prompt(where: str, row: Row, wanted: Sequence[str]) -> Prompt:
    messages = checked_messages(row["messages"], where.rstrip(",")) if row.get("messages") is not None else []
    text = messages[-1]["content"] if messages else text_in(row, "prompt")
    if text is None:
        raise TextError(f"{where} holds no prompt. {_EXPECTED}")
    language = language_in(where, row, wanted, _EXPECTED)
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
