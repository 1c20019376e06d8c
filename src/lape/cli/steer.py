"""`lape steer`: an answer as the model gives it, and as it gives it when steered to another language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from lape.cli.common import out, progress
from lape.cli.flags import FLAGS, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, run_of
from lape.data.language_id import base, lingua
from lape.edit.steer import BeginningOptions, steering
from lape.edit.steer import steer as steered
from lape.errors import FileError, OptionError
from lape.measure.bench import named_sets
from lape.measure.generation import stream
from lape.measure.prompts import ask, stops
from lape.values.stats import ActivationStats

_STEER = BeginningOptions()


def steer(
    model: str,
    *prompts: str,
    to: str,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    run: Path | None = None,
    file: Path | None = None,
    sets: str = "difference:100",
    new_tokens: int = 60,
    repetition_penalty: float = 1.1,
    bare: Switch = False,
    options: Annotated[BeginningOptions, FLAGS] = _STEER,
    loading: Loading = LOADING,
) -> None:
    """Write the unsteered and the steered answer to each prompt, with the language that each seems to be in.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    prompts
        Questions, each in quotes.
    to
        The language to steer to.
    source
        The language of the prompts. Default: told from each prompt (extra lid).
    run
        A run's folder, with statistics. Default for sample: the demo's.
    file
        A file of prompts, one a line.
    sets
        Which neurons: lape (those of the run), or difference:N (the N largest differences of mean activation).
    new_tokens
        At most this many new tokens an answer.
    repetition_penalty
        Divides the odds of tokens that occurred already; 1 is none.
    bare
        Give the prompt as it is, not as a question to answer.
    """
    asked = _prompts(prompts, file)
    folder = run_of(model, run)
    stats = ActivationStats.load(folder)
    target = stats.canonical(to)
    names = _Names(stats.languages)
    sources = [stats.canonical(source) if source else names.source(prompt) for prompt in asked]
    neurons = named_sets(stats, sets, folder)
    for one in dict.fromkeys(sources):
        steering(neurons, stats, options, source=one, target=target)  # refuses before the model is loaded
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, statistics=stats)
    for prompt, of in zip(asked, sources, strict=True):
        out.print(f"{escape(prompt)}  [dim]({of} → {target})[/]", style="bold")
        text = prompt if bare else ask(tokenizer, prompt, source=of, target=target)
        ends = [] if bare else stops(target)
        _show("unsteered", stream(loaded, tokenizer, text, new_tokens, repetition_penalty, ends), names)
        with steered(loaded, neurons, stats, options, source=of, target=target):
            _show("steered", stream(loaded, tokenizer, text, new_tokens, repetition_penalty, ends), names)
        out.print()


def _prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    asked = [*prompts]
    if file is not None:
        if not file.is_file():
            raise FileError(f"There is no file {file}. Expected a text file of prompts, one a line.")
        try:
            asked += [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise FileError(f"{file} is not UTF-8 text. Expected prompts, one a line.") from error
    if not any(prompt.strip() for prompt in asked):
        raise OptionError(
            'No prompt was given. Type one in quotes: lape steer MODEL "How are you?" --to fr, or --file FILE.'
        )
    return asked


class _Names:
    """Says what language a text is in, where the identifier is installed and knows the languages."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._recorded = languages
        self._languages = {base(language): language for language in reversed(languages)}
        try:
            self._identify: Any = lingua(languages)
        except OptionError as error:
            self._identify, self._why = None, error

    def source(self, prompt: str) -> str:
        """The recorded language of a prompt."""
        if self._identify is None:
            raise OptionError(f"{self._why} Or name the prompts' language: --from en.")
        guess = self._identify([prompt])[0]
        if guess.language not in self._languages:
            seems = f"seems to be {guess.language}" if guess.language else "is in no language for certain"
            raise OptionError(
                f"{prompt!r:.60} {seems}; recorded are {', '.join(self._recorded)}. Name its language: --from en."
            )
        return self._languages[guess.language]

    def told(self, text: str) -> str:
        """In words, what language a text seems to be in."""
        if self._identify is None:
            return "language not told (extra lid)"
        guess = self._identify([text])[0] if text.strip() else None
        return (
            f"{guess.language}, {guess.certainty:.0%} certain"
            if guess and guess.language
            else "no language for certain"
        )


def _show(label: str, pieces: Iterable[str], names: _Names) -> None:
    """Show an answer as it comes, and say what language it is in."""
    out.print(f"[green]{label}:[/] ", end="")
    answer = ""
    for piece in pieces:
        out.print(piece if answer else piece.lstrip(), end="", markup=False, soft_wrap=True)
        answer += piece if answer else piece.lstrip()
    end = "" if answer.endswith("\n") else "\n"
    out.print(f"{end}[dim]  {label} answer: {names.told(answer)}[/]")
