"""Answers that were given elsewhere, read from logs: what was answered, and in which language it should have been."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from lape.data.languages import tag
from lape.errors import FileError, TextError
from lape.experiments.confusion.lines import Row, files_of, language_in, load_json, read_lines, text_in
from lape.experiments.confusion.prompts import Prompt, Questions
from lape.measure.answer_failures import without_thought
from lape.measure.language_confusion import ALL
from lape.signs import many, replace_surrogates
from lape.store.run import read_table

GIVEN = {
    **dict.fromkeys(("condition", "task", "source", "language", "question"), pl.String),
    "seed": pl.Int64,
    **dict.fromkeys(("prompt", "answer", "reasoning"), pl.String),
    "cut": pl.Boolean,
}
"""A row an answer: under which `condition` it was given, of which `task` and `source` it is, the `language` that it should be in, the `question` that it
is to (what has the same name is the same question), the `seed` of its draw (0 where there is none), the `prompt` (null where it is not known), the
`answer`, the `reasoning` before it (null without), and whether it was `cut` at the number of new tokens (null where that is not known).
"""
UNJUDGED = {"file": pl.String, "line": pl.Int64, "why": pl.String}
"""A row per line of a log that cannot be judged: its number in its file (of a .csv, of its row, the heading being row 1), and why."""
TABLE = "confused_answers.parquet"
"""Where a folder of ours has them."""
_EXPECTED = (
    'Expected lines such as {"answer": "…", "language": "ko", "prompt": "…"} or {"messages": […], "language": "ko"}, or the columns answer (or '
    "completion) and language."
)
_NAME_LANGUAGE = "Each line has to name its language, or there is one for all: languages=['ko']."
_ANSWER = ("answer", "completion", "response", "output")
_REASONING = ("reasoning", "reasoning_content")
_CONDITION = ("condition", "model", "way")
_SHOWN = 5
"""Lines that cannot be judged whose reasons are shown."""


@dataclass(frozen=True)
class Log:
    """What files of answers hold."""

    answers: pl.DataFrame
    """`GIVEN`."""
    unjudged: pl.DataFrame
    """`UNJUDGED`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How many lines cannot be judged, and the first of them with their reasons."""
        if not (count := len(self.unjudged)):
            return ()
        share = f"{count:,} of {many(count + len(self.answers), 'line')} could not be judged"
        more = [f"and {count - _SHOWN:,} more"] if count > _SHOWN else []
        return (f"{share}: {'; '.join([*self.reasons(_SHOWN), *more])}.",)

    def reasons(self, most: int) -> list[str]:
        """Why the first lines cannot be judged."""
        return [f"{file}, line {line}: {why}" for file, line, why in self.unjudged.head(most).iter_rows()]


def read_answers(
    paths: Iterable[str | Path], languages: Sequence[str] | None = None, prompts: Sequence[Prompt] = ()
) -> pl.DataFrame:
    """The answers of `read_log`. Raises TextError for the first line that cannot be judged, too.

    Example:
        >>> from lape.experiments.confusion.answers import read_answers
        >>> with open("log.jsonl", "w") as file:
        ...     _ = file.write('{"prompt": "Pourquoi ?", "answer": "Because light is scattered.", "language": "fr"}')
        >>> read_answers(["log.jsonl"]).select("language", "question", "answer").rows()
        [('fr', 'log fr 0', 'Because light is scattered.')]
    """
    log = read_log(paths, languages, prompts)
    if reasons := log.reasons(1):
        raise TextError(f"{reasons[0]}. {_EXPECTED} To leave such lines out: read_log.")
    return log.answers


def read_log(
    paths: Iterable[str | Path],
    languages: Sequence[str] | None = None,
    prompts: Sequence[Prompt] = (),
    *,
    check: Callable[[str], object] = tag,
) -> Log:
    r"""Answers of .jsonl and .csv files, also packed (.gz, .zst), and of folders that lape confusion or lape fix made. No model is needed.

    A line has the `language` that the answer should be in (or lang, locale, target_language), and an `answer` (or completion, response, output: as text,
    as parts of text, or as what OpenAI's interface gives), or `messages` that end with what the assistant says, or `choices`. If need be it has
    `prompt`, `question`, `task`, `source`, `condition` (or model; by default the file's name, where there are several), `seed`, `cut`, `reasoning`
    (or reasoning_content; what stands between `<think>` and `</think>` is reasoning too). So the published outputs of the Language Confusion
    Benchmark are read as they are. `languages`: those alone; where just one is named, lines need not name theirs.

    A line that cannot be judged is left out and counted: one that is not JSON, holds no answer or language, or something else than text there, or names a
    language that `check` refuses with a TextError, or is longer than `lape.experiments.confusion.lines.LONGEST`.

    `prompts`: the benchmark's, in their order; answers without a prompt that are as many as the prompts of their task, source and language are taken to be
    to those, so that rephrasings of a question are known. Raises FileError for what cannot be read, TextError where no line can be judged.

    Example:
        >>> from lape.experiments.confusion.answers import read_log
        >>> with open("chats.jsonl", "w") as file:
        ...     _ = file.write('{"messages": [{"role": "assistant", "content": "Oui."}], "lang": "French"}\n{"answer": 5, "lang": "fr"}')
        >>> log = read_log(["chats.jsonl"])
        >>> log.answers.select("language", "answer").rows(), log.unjudged.rows()
        ([('fr', 'Oui.')], [('chats.jsonl', 2, 'it holds no answer that is text')])
    """
    wanted = [*map(tag, languages or ())]
    files = [file for path in paths for file in _files(Path(path))]
    names = _apart([file.parent if file.name == TABLE else file.with_suffix("") for file in files])
    rows: list[dict[str, Any]] = []
    unjudged: list[tuple[str, int, str]] = []
    for file, name in zip(files, map(replace_surrogates, names), strict=True):
        found = _of_ours(file, name) if file.name == TABLE else _of_lines(file, wanted, name, check, unjudged)
        rows += [row for row in found if not wanted or row["language"] in wanted]
    bad = pl.DataFrame(unjudged, schema=UNJUDGED, orient="row")
    if not rows:
        _refuse(paths, wanted, bad)
    _name_questions(rows, prompts)
    return Log(pl.DataFrame([{name: row[name] for name in GIVEN} for row in rows], schema=GIVEN), bad)


def _files(path: Path) -> list[Path]:
    """The table of a folder of ours, else a file, or every .csv of a folder."""
    ours = path / TABLE
    return [ours] if ours.is_file() else files_of(path)


def _apart(places: Sequence[Path]) -> list[str]:
    """What conditions are called by their files: by the last part of their paths, or as much as tells them apart; not at all where there is one."""
    names = [place.name for place in places]
    if len(places) == 1:
        return [""]
    return names if len(set(names)) == len(names) else [place.as_posix() for place in places]


def _refuse(paths: Iterable[str | Path], wanted: Sequence[str], unjudged: pl.DataFrame) -> NoReturn:
    """Raise TextError for files of which no line can be judged."""
    said = [
        f"There are no answers in {', '.join(map(str, paths))}{' that are wanted in ' if wanted else ''}{', '.join(wanted)}."
    ]
    said += [*Log(pl.DataFrame(schema=GIVEN), unjudged).notes, _EXPECTED]
    if any("names no language" in why for why in unjudged["why"]):
        said.append(_NAME_LANGUAGE)
    raise TextError(" ".join(said))


def _of_ours(file: Path, name: str) -> Iterator[dict[str, Any]]:
    """The answers of a folder of ours."""
    table = read_table(file)
    if missing := [name for name, kind in GIVEN.items() if table.schema.get(name) != kind]:
        raise FileError(
            f"{file} lacks {', '.join(missing)}: another version of lape wrote it. Ask the model again: lape confusion."
        )
    for row in table.select(*GIVEN).iter_rows(named=True):
        yield {**row, "condition": ", ".join(filter(None, (name, row["condition"]))), "phrasing": None}


def _of_lines(
    file: Path,
    wanted: Sequence[str],
    condition: str,
    check: Callable[[str], object],
    unjudged: list[tuple[str, int, str]],
) -> Iterator[dict[str, Any]]:
    """The answers of a file; what cannot be judged is added to `unjudged`."""
    for line in read_lines(file):
        try:
            row = line.read()
            thought, said = without_thought(_answer(row))
            language = language_in(row, wanted, check)
        except TextError as error:
            unjudged.append((replace_surrogates(str(file)), line.number, str(error).partition(" Expected ")[0]))
            continue
        source = text_in(row, "source") or replace_surrogates(file.stem)
        yield {
            "condition": text_in(row, *_CONDITION) or condition,
            "task": text_in(row, "task") or "",
            "source": source if source != ALL else f"source {ALL}",  # which stands for the mean over sources
            "language": language,
            "question": text_in(row, "question") or "",
            "seed": _seed(row.get("seed")),
            "prompt": _asked(row),
            "answer": said,
            "reasoning": text_in(row, *_REASONING) or thought,
            "cut": _whether(row.get("cut")),
            "phrasing": row.get("phrasing"),
        }


def _answer(row: Row) -> str:
    """The answer of a row. Raises TextError where there is none, or something else than text."""
    given = [row[name] for name in _ANSWER if name in row]
    texts = (_text(one) for one in (*given, row, _last(row, "assistant")))
    answer = next((one for one in texts if one is not None), None)
    if answer is None and given and given == [None] * len(given):
        return ""  # a table that was written as CSV or by pandas has null for an empty text
    if answer is None:
        raise TextError("it holds no answer that is text")
    return answer


def _text(given: Any) -> str | None:
    """The text of an answer: as it is, in parts, or in what OpenAI's interface gives; None where there is none."""
    if isinstance(given, list):
        texts = [one["text"] for one in given if isinstance(one, Mapping) and isinstance(one.get("text"), str)]
        return "".join(texts) if texts else None
    if isinstance(given, Mapping):
        found = given.get("body", given)  # of OpenAI's batches
        choices = found.get("choices") if isinstance(found, Mapping) else None
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, Mapping):
            return None
        message = first.get("message")
        return _text(message.get("content")) if isinstance(message, Mapping) else _text(first.get("text"))
    return given if isinstance(given, str) else None


def _last(row: Row, role: str) -> Any:
    """What was said last in a conversation, if `role` said it; of users, what the last of them said."""
    messages = row.get("messages")
    turns = load_json(messages) if isinstance(messages, str) else messages
    said = [one for one in turns if isinstance(one, Mapping)] if isinstance(turns, list) else []
    if role == "user":
        said = [one for one in said if one.get("role") == role]
    return said[-1].get("content") if said and said[-1].get("role") == role else None


def _asked(row: Row) -> str | None:
    """The prompt, or what the user said last in a conversation."""
    return _text(_last(row, "user")) or text_in(row, "prompt", "question_text")


def _seed(value: Any) -> int:
    """The seed of a draw; 0 for what is no integer that a column can hold."""
    try:
        seed = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return seed if -(2**63) <= seed < 2**63 else 0


def _whether(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _name_questions(rows: Sequence[dict[str, Any]], prompts: Sequence[Prompt]) -> None:
    """Give every answer the name of its question: by its prompt, by its place among the benchmark's prompts, or one of its own."""
    places: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in prompts:
        places[one.task, one.source, one.language].append(one.question)
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["condition"], str(row["seed"]), row["task"], row["source"], row["language"]].append(row)
    questions = Questions()
    for (_, _, task, source, language), some in groups.items():
        listed = places.get((task, source, language), [])
        for place, row in enumerate(some):
            if row["question"]:
                continue
            if row["prompt"] is None and len(listed) == len(some):
                row["question"] = listed[place]
                continue
            text = str(place) if row["prompt"] is None else row["prompt"]
            row["question"] = questions.name(text, row, task, source, language)
