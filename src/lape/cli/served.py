"""What `lape doctor` shows of a server: its answers with and without an adapter, and whether it uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from lape.cli.asked import read_questions
from lape.cli.common import out, progress
from lape.data import samples
from lape.errors import FileError, OptionError
from lape.ship.server import Prompt, ServerOptions, ask_server
from lape.signs import many


def is_address(word: str) -> bool:
    """True if a word that may be a model is a server's address."""
    return word.startswith(("http://", "https://"))


def show_served(url: str, adapter: str, file: Path | None, options: ServerOptions) -> None:
    """Ask a server, show its answers, and raise MismatchError if it does not use the adapter."""
    prompts = _read_prompts(file, bare=options.bare)
    with progress() as report:
        served = ask_server(url, adapter, prompts, **vars(options), progress=report)
    for answer in served.answers:
        out.print(Text(answer.prompt, style="bold"), soft_wrap=True)
        labels = ("without", "with") if answer.base != answer.adapter else ("with and without",)
        for label, text in zip(labels, (answer.base, answer.adapter), strict=False):
            out.print(f"{label} {served.adapter}: {' '.join(text.split())}", soft_wrap=True)
    of = many(len(served.answers), "answer")
    lines = (
        f"{served.engine.name} at {served.url}: {served.base}, without and with {served.adapter}",
        f"{served.adapter} changes {served.changed} of {of}; asked twice without it, the server changes {served.noise}",
    )
    for line in lines:
        out.print(line, soft_wrap=True)
    served.check()
    out.print(Text.assemble(("✓ ", "green"), f"The server uses {served.adapter}."), soft_wrap=True)


def _read_prompts(file: Path | None, *, bare: bool) -> Sequence[Prompt]:
    """Read a file of prompts; without one, the bundled development questions. Raises OptionError, FileError or TextError."""
    if file is None:
        return samples.questions("development", languages=["en"])["en"]
    questions = read_questions(file)
    if not questions:
        raise FileError(f"{file} holds no prompt. Expected prompts, one per line.")
    if bare and any(question.messages for question in questions):
        raise OptionError(
            "bare sends the server each prompt as it is, so no messages can be used with it. Leave one of them out."
        )
    return [question.messages or question.text for question in questions]
