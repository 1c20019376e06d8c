"""Answers that were given elsewhere, read from logs: what was answered, and in which language it should have been."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from lape.data.languages import tag
from lape.errors import FileError, TextError
from lape.experiments.confusion.prompts import Prompt, Questions, Row, files_of, language_in, rows_of, text_in
from lape.measure.answer_failures import without_thought
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
TABLE = "confused_answers.parquet"
"""Where a folder of ours has them."""
_EXPECTED = 'Expected lines such as {"answer": "…", "language": "ko", "prompt": "…"}, or the columns answer (or completion) and language.'
_ANSWER = ("answer", "completion", "response", "output")
_REASONING = ("reasoning", "reasoning_content")
_CONDITION = ("condition", "model", "way")


def read_answers(
    paths: Iterable[str | Path], languages: Sequence[str] | None = None, prompts: Sequence[Prompt] = ()
) -> pl.DataFrame:
    """Answers of .jsonl and .csv files, and of folders that lape confusion or lape fix made: `GIVEN`. No model is needed.

    A line has `answer` (or completion, response, output) and the `language` that it should be in, and if need be `prompt`, `question`, `task`, `source`,
    `condition` (or model; by default the file's name, where there are several), `seed`, `cut`, `reasoning` (or reasoning_content; what stands between
    `<think>` and `</think>` is reasoning too). So the published outputs of the Language Confusion Benchmark are read as they are. `languages`: those
    alone; where just one is named, lines need not name theirs.

    `prompts`: the benchmark's, in their order; answers without a prompt that are as many as the prompts of their task, source and language are taken to be
    to those, so that rephrasings of a question are known. Raises FileError for what cannot be read, TextError for a line without an answer or a language.

    Example:
        >>> from lape.experiments.confusion.answers import read_answers
        >>> with open("log.jsonl", "w") as file:
        ...     _ = file.write('{"prompt": "Pourquoi ?", "answer": "Because light is scattered.", "language": "fr"}')
        >>> read_answers(["log.jsonl"]).select("language", "question", "answer").rows()
        [('fr', 'log fr 0', 'Because light is scattered.')]
    """
    wanted = [tag(one) for one in languages or ()]
    files = [file for path in paths for file in _files(Path(path))]
    names = _apart([file.parent if file.name == TABLE else file.with_suffix("") for file in files])
    rows = [row for file, name in zip(files, names, strict=True) for row in _rows(file, wanted, name)]
    rows = [row for row in rows if not wanted or row["language"] in wanted]
    if not rows:
        raise TextError(f"There are no answers in {', '.join(map(str, paths))}. {_EXPECTED}")
    _name_questions(rows, prompts)
    return pl.DataFrame([{name: row[name] for name in GIVEN} for row in rows], schema=GIVEN)


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


def _rows(file: Path, wanted: Sequence[str], name: str) -> Iterator[dict[str, Any]]:
    if file.name != TABLE:
        yield from _read(file, wanted, name)
        return
    table = read_table(file)
    if missing := [name for name, kind in GIVEN.items() if table.schema.get(name) != kind]:
        raise FileError(
            f"{file} lacks {', '.join(missing)}: another version of lape wrote it. Ask the model again: lape confusion."
        )
    for row in table.select(*GIVEN).iter_rows(named=True):
        yield {**row, "condition": ", ".join(filter(None, (name, row["condition"]))), "phrasing": None}


def _read(file: Path, wanted: Sequence[str], condition: str) -> Iterator[dict[str, Any]]:
    for where, row in rows_of(file):
        answer = next((row[name] for name in _ANSWER if isinstance(row.get(name), str)), None)
        if answer is None and not any(name in row for name in _ANSWER) and file.suffix != ".csv":
            raise TextError(f"{where} holds no answer. {_EXPECTED}")
        language = language_in(where, row, wanted, _EXPECTED)
        thought, said = without_thought(answer or "")  # an empty answer is null where a table was written as CSV
        yield {
            "condition": text_in(row, *_CONDITION) or condition,
            "task": text_in(row, "task") or "",
            "source": text_in(row, "source") or file.stem,
            "language": language,
            "question": text_in(row, "question") or "",
            "seed": _whole(row.get("seed")),
            "prompt": _asked(row),
            "answer": said,
            "reasoning": text_in(row, *_REASONING) or thought,
            "cut": _whether(row.get("cut")),
            "phrasing": row.get("phrasing"),
        }


def _asked(row: Row) -> str | None:
    """The prompt, or what was said last in a conversation."""
    messages = row.get("messages")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except json.JSONDecodeError:
            messages = None
    if isinstance(messages, list):
        said = [one.get("content") for one in messages if isinstance(one, dict) and one.get("role") == "user"]
        return next((one for one in reversed(said) if isinstance(one, str)), None)
    return text_in(row, "prompt", "question_text")


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _whether(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())


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
