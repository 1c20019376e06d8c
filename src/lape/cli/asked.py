"""What a model is asked by a verb: prompts and conversations of the command and of files, and the language of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lape.data.language_id import Teller
from lape.errors import FileError, OptionError, TextError, warn
from lape.measure.prompts import Message, ask, checked_messages, conversation


@dataclass(frozen=True)
class Question:
    """A prompt, or the last thing that a user says in a conversation."""

    text: str
    messages: tuple[Message, ...] = ()
    """The whole conversation; none of a prompt that stands alone."""

    def prompt(self, tokenizer: Any, *, source: str, target: str, system: str | None, bare: bool) -> str:
        """The text that the model goes on from."""
        if self.messages:
            return conversation(tokenizer, self.messages, system=system)
        return self.text if bare else ask(tokenizer, self.text, source=source, target=target, system=system)


def questions_of(prompts: Sequence[str], file: Path | None, *, system: str | None, bare: bool) -> list[Question]:
    """Those of the command, then those of a file. Raises OptionError, FileError or TextError where there is none, or one is not readable."""
    asked = [Question(prompt) for prompt in prompts if prompt.strip()] + ([] if file is None else read_questions(file))
    if not asked:
        raise OptionError(
            'No prompt was given. Type one in quotes: lape steer MODEL "How are you?" --to fr, or --file FILE.'
        )
    if bare and (system is not None or any(one.messages for one in asked)):
        raise OptionError(
            "bare gives the model each prompt as it is, so neither a system prompt nor messages can be used with it. Leave one of them out."
        )
    return asked


def read_questions(file: Path) -> list[Question]:
    """Prompts of a text file, one per line; of a .jsonl file, prompts or conversations."""
    if not file.is_file():
        raise FileError(f"There is no file {file}. Expected a text file of prompts, one per line, or a .jsonl file.")
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # other line ends may stand within JSON's text
    except UnicodeDecodeError as error:
        raise FileError(f"{file} is not UTF-8 text. Expected prompts, one per line.") from error
    if file.suffix != ".jsonl":
        return [Question(line.strip()) for line in lines if line.strip()]
    return [_question(line, f"{file}, line {number},") for number, line in enumerate(lines, 1) if line.strip()]


def _question(line: str, where: str) -> Question:
    """A line of a .jsonl file: a prompt, its object, or messages."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextError(f'{where} is not JSON. Expected {{"prompt": "…"}} or {{"messages": […]}}.') from error
    if isinstance(found, dict) and "messages" not in found:
        found = found.get("prompt")
    if isinstance(found, str) and found.strip():
        return Question(found.strip())
    if isinstance(found, dict):
        found = found["messages"]
    if not isinstance(found, list):
        raise TextError(f'{where} holds no prompt. Expected {{"prompt": "…"}} or {{"messages": […]}}.')
    messages = checked_messages(found, where.rstrip(","))
    return Question(messages[-1]["content"], tuple(messages))


def sources_of(names: Teller, prompts: Sequence[str], recorded: Sequence[str], target: str) -> list[str]:
    """The language of each prompt: told from it, or else the one that most of the prompts are in, which is said."""
    if names.missing:
        raise OptionError(f"{names.missing} Or name the prompts' language: --from en.")
    told = names.sources(prompts, target)
    unclear = [prompt for prompt, language in zip(prompts, told, strict=True) if language is None]
    there = [prompt for prompt, language in zip(prompts, told, strict=True) if language == target]
    known = Counter(language for language in told if language not in (None, target))
    if there and not known:
        raise OptionError(
            f"{there[0]!r:.60} is already in {target}, the language to steer to: source and target are both {target}. Name another target, "
            "or the prompts' language if this is wrong: --from TAG."
        )
    if not known:
        raise OptionError(
            f"The language of {unclear[0]!r:.60} is uncertain; recorded are {', '.join(recorded)}. Name it: --from en."
        )
    most = known.most_common(1)[0][0]
    for some, why in ((unclear, "of uncertain language"), (there, f"already in {target}")):
        if some:
            few = ", ".join(f"{prompt!r:.40}" for prompt in some[:3]) + (", …" if len(some) > 3 else "")
            warn(
                f"{len(some)} of {len(prompts)} prompts {'is' if len(some) == 1 else 'are'} {why} ({few}) and taken to be in {most}, the language "
                "of most others. If that is wrong, name the prompts' language: --from TAG."
            )
    return [most if language in (None, target) else language for language in told]
