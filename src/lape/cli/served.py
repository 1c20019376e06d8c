"""What `lape doctor` shows of a server: its answers with and without an adapter, side by side, and beside those of the model at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.table import Table
from rich.text import Text

from lape.cli.asked import read_questions
from lape.cli.common import out, progress
from lape.cli.inputs import load_proven
from lape.data import samples
from lape.data.language_id import Guess, Teller
from lape.errors import FileError, OptionError, warn
from lape.ship.server import FIRST, Answered, Local, Prompt, Served, ServerOptions, ask_server, last_of, messages_of
from lape.signs import many

if TYPE_CHECKING:
    from lape.model.load import ModelOptions
    from lape.progress import Progress

_TOLD = (*samples.LANGUAGES, *(language for language in samples.FURTHER if "-" not in language))
"""Languages that an answer is told to be in; their neighbours are told too."""


@dataclass(frozen=True)
class Asked:
    """What a server is asked, and what its answers are compared with."""

    prompts: Path | None
    source: str
    local: str | None
    folder: Path | None

    def read(self, *, bare: bool) -> list[Prompt]:
        """The prompts. Raises OptionError, FileError or TextError where there is none, or one is not readable."""
        if self.folder is not None and self.local is None:
            raise OptionError(
                f"folder={self.folder} is compared with a model at hand, and none was named. Name the model too: local=MODEL."
            )
        if self.prompts is None and self.source not in (known := samples.EVERY):
            raise OptionError(
                f"source is {self.source}, and the bundled questions are in {', '.join(known)}. Name one of these, or give prompts=FILE."
            )
        if self.prompts is None:
            return [*samples.questions("development", languages=[self.source])[self.source]]
        found = read_questions(self.prompts)
        if not found:
            raise FileError(f"{self.prompts} holds no prompt. Expected prompts, one per line.")
        if bare and any(one.messages for one in found):
            raise OptionError(
                "bare gives the server each prompt as it is, so no messages can be used with it. Leave one of them out."
            )
        return [one.messages or one.text for one in found]


def is_address(word: str) -> bool:
    """Whether a word that may be a model is a server's address."""
    return word.startswith(("http://", "https://"))


def show_served(url: str, adapter: str, asked: Asked, options: ServerOptions, loading: ModelOptions) -> None:
    """Ask a server, show what it answered, and raise MismatchError where it does not use the adapter."""
    prompts = asked.read(bare=options.bare)
    with progress() as report:
        local = None if asked.local is None else _AtHand(asked.local, asked.folder, options, loading, report).local
        served = ask_server(url, adapter, prompts, **vars(options), local=local, progress=report)
    names = Teller(_TOLD)
    told = [(names(one.base), names(one.adapter)) for one in served.answers]
    for one, guesses in zip(served.answers, told, strict=True):
        out.print(Text(one.prompt, style="bold"), soft_wrap=not out.is_terminal)
        labels = (f"without {served.adapter}", f"with {served.adapter}")
        shown = [*zip(labels, (one.base, one.adapter), _remarks(one, guesses, names), strict=True)]
        if one.adapter == one.base:
            shown = [(f"with and without {served.adapter}", *shown[1][1:])]
        _side_by_side(shown) if out.is_terminal else _in_lines(shown)
        out.print()
    _summary(served, told, names)
    served.check()
    if served.mixed > served.noise:
        warn(
            f"Without {served.adapter} the server answers {served.mixed} of {many(len(served.answers), 'prompt')} otherwise once the same was asked "
            f"with it: {served.engine.name} goes on from what it kept of a prompt, whichever adapter that was under. Start it so that it keeps nothing "
            f'({served.engine.load}), or put "{served.engine.kept}": false into each request.'
        )
    if served.short:
        warn(
            f"With {served.adapter} the server agrees less with the edited model at hand than without it does with the unedited one. It may use a part "
            "of the adapter only: see whether its log names modules that it left out, and whether both run in the same number format and at the same strength."
        )
    out.print(Text.assemble(("✓ ", "green"), f"The server uses {served.adapter}."), soft_wrap=True)


_Shown: TypeAlias = tuple[str, str, str]
"""An answer: what it is called, itself, and what is to be said of it."""


def _side_by_side(shown: Sequence[_Shown]) -> None:
    """Answers in columns of a terminal."""
    table = Table(box=None, expand=True, padding=(0, 2, 0, 0), header_style="green")
    for label, _, _ in shown:
        table.add_column(label, ratio=1, overflow="fold")
    table.add_row(*(Text(answer.strip()) for _, answer, _ in shown))
    table.add_row(*(Text(remark, style="dim") for _, _, remark in shown))
    out.print(table)


def _in_lines(shown: Sequence[_Shown]) -> None:
    """Answers in a line each, for a pipe or a file."""
    for label, answer, remark in shown:
        out.print(f"{label}: {' '.join(answer.split())}", soft_wrap=True)
        out.print(f"  {remark}", soft_wrap=True)


def _remarks(one: Answered, guesses: tuple[Guess, Guess], names: Teller) -> tuple[str, str]:
    """What is to be said of both answers."""
    without = "" if one.steady else "; asked again, it answered otherwise"
    same = "; the same answer" if one.adapter == one.base else "" if one.changed else "; as the other time without"
    return f"{_language(guesses[0], one.base, names)}{without}", f"{_language(guesses[1], one.adapter, names)}{same}"


def _language(guess: Guess, answer: str, names: Teller) -> str:
    if not answer.strip():
        return "nothing was written"
    if names.missing:
        return "language not identified (needs the extra lid)"
    return f"{guess.language}, {guess.certainty:.0%} certain" if guess.language else "language uncertain"


def _summary(served: Served, told: Sequence[tuple[Guess, Guess]], names: Teller) -> None:
    """What all answers say."""
    of = len(served.answers)
    lines = [f"{served.engine.name} at {served.url}: {served.base}, without and with {served.adapter}"]
    lines.append(f"{served.changed} of {many(of, 'answer')} changed by {served.adapter}")
    again = "the same answer" if not served.noise else f"another answer on {served.noise}"
    lines.append(
        f"asked twice without it: {again} (greedy; a server that runs requests together may still round them differently)"
    )
    if not names.missing:
        without, with_it = (
            Counter(guess.language or "uncertain" for guess in some) for some in zip(*told, strict=True)
        )
        lines.append(f"languages without: {_counts(without)}; with: {_counts(with_it)}")
    for what, found in (("unedited", served.unedited), ("edited", served.edited)):
        if found is not None:
            lines.append(
                f"first {FIRST} tokens as the {what} model at hand has them: {found.share:.2f}; all of them in {found.whole} of {many(found.of, 'answer')}"
            )
    for line in lines:
        out.print(line, soft_wrap=True)


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{language} {number}" for language, number in found.most_common())


class _AtHand:
    """The model at hand, loaded when it is asked first: a server that cannot be used is said before. It is asked as the server is."""

    def __init__(
        self, model: str, folder: Path | None, options: ServerOptions, loading: ModelOptions, report: Progress
    ) -> None:
        self._model, self._options, self._loading, self._report = model, options, loading, report
        self._edits = None if folder is None else _edits_of(folder)
        self.local = Local(self._answers, self._tokens)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        return load_proven(self._model, self._loading, self._report)

    def _answers(self, prompts: Sequence[Prompt]) -> tuple[list[str], list[str] | None]:
        from lape.edit.edit import edited
        from lape.measure.generation import GenerationOptions, generate
        from lape.measure.prompts import conversation

        model, tokenizer = self._loaded
        how = GenerationOptions(self._options.new_tokens, repetition_penalty=1.0, batch=8)
        bare = self._options.bare
        texts = [last_of(one) if bare else conversation(tokenizer, messages_of(one)) for one in prompts]
        self._report("answering with the model at hand", 0, None)
        unedited = generate(model, tokenizer, texts, how)
        if self._edits is None:
            return unedited, None
        with edited(model, self._edits(model)):
            return unedited, generate(model, tokenizer, texts, how)

    def _tokens(self, text: str) -> list[int]:
        return list(self._loaded[1](text, add_special_tokens=False)["input_ids"])


def _edits_of(folder: Path) -> Callable[[Any], list[Any]]:
    """Model -> the edits of an exported folder. Making them raises MismatchError where they are of another model."""
    from lape.ship.export import edits_in, said_in

    said_in(folder)  # refuses before a model is loaded
    return lambda model: edits_in(folder, model)
