"""`lape steer`: an answer as the model gives it, and as it gives it when steered to another language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from lape.cli.common import Flowing, out, progress
from lape.cli.flags import FLAGS, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, run_of
from lape.data.language_id import Teller
from lape.edit.steer import SteerOptions, steering
from lape.edit.steer import steer as steered
from lape.errors import FileError, OptionError, warn
from lape.measure.bench import named_sets
from lape.measure.generation import stream
from lape.measure.prompts import ask, stops
from lape.values.stats import ActivationStats

_STEER = SteerOptions()


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
    options: Annotated[SteerOptions, FLAGS] = _STEER,
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
        The language of the prompts. Default: told from each prompt, or where it is not certain, that of most of them (extra lid).
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
    names = Teller(stats.languages)
    sources = [stats.canonical(source)] * len(asked) if source else _sources(names, asked, stats.languages, target)
    neurons = named_sets(stats, sets, folder)
    for one in dict.fromkeys(sources):
        steering(neurons, stats, options, source=one, to=target)  # refuses before the model is loaded
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, statistics=stats, neurons=neurons)
    told: dict[str, list[str | None]] = {"unsteered": [], "steered": []}
    for prompt, of in zip(asked, sources, strict=True):
        out.print(Text.assemble((prompt, "bold"), (f"  ({of} → {target})", "dim")))
        text = prompt if bare else ask(tokenizer, prompt, source=of, target=target)
        for label, edits in (("unsteered", nullcontext()), ("steered", None)):
            with edits or steered(loaded, neurons, stats, source=of, to=target, **vars(options)):
                pieces = stream(loaded, tokenizer, text, new_tokens, repetition_penalty, [] if bare else stops(target))
                told[label].append(_show(label, pieces, new_tokens, names))
        out.print()
    if len(asked) > 1 and not names.missing:
        out.print(_counted(told, target))


def _counted(told: Mapping[str, Sequence[str | None]], target: str) -> str:
    """How many answers are in the target language."""
    counts = [f"{label} {languages.count(target)} of {len(languages)}" for label, languages in told.items()]
    return f"Answers in {target}: {', '.join(counts)}."


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


def _sources(names: Teller, prompts: Sequence[str], recorded: Sequence[str], target: str) -> list[str]:
    """The language of each prompt: told from it, or else the one that most of the prompts are in, which is said."""
    if names.missing:
        raise OptionError(f"{names.missing} Or name the prompts' language: --from en.")
    told = names.sources(prompts, target)
    unclear = [prompt for prompt, language in zip(prompts, told, strict=True) if language is None]
    there = [prompt for prompt, language in zip(prompts, told, strict=True) if language == target]
    known = Counter(language for language in told if language not in (None, target))
    if there and not known:
        raise OptionError(
            f"{there[0]!r:.60} is in {target} already, the language to steer to. Source and target are both {target}. Name two languages, "
            "or the prompts' language, if this is wrong: --from TAG."
        )
    if not known:
        raise OptionError(
            f"{unclear[0]!r:.60} is in no language for certain; recorded are {', '.join(recorded)}. Name its language: --from en."
        )
    most = known.most_common(1)[0][0]
    for some, why in ((unclear, "in no language for certain"), (there, f"in {target} already")):
        if some:
            few = ", ".join(f"{prompt!r:.40}" for prompt in some[:3]) + (", …" if len(some) > 3 else "")
            warn(
                f"{len(some)} of {len(prompts)} prompts {'is' if len(some) == 1 else 'are'} {why} ({few}), taken to be in {most}, the language "
                "of most others. If that is wrong, name the prompts' language: --from TAG."
            )
    return [most if language in (None, target) else language for language in told]


def _show(label: str, pieces: Generator[str, None, bool], most: int, names: Teller) -> str | None:
    """Show an answer as it comes, and say what language it is in and whether it was cut at its most tokens. Gives that language."""
    out.print(Text(f"{label}:", style="green"), end=" ")
    answer, flow, cut = "", Flowing(len(label) + 2), False
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            cut = end.value
            break
        piece = piece if answer else piece.lstrip()
        answer += piece
        out.print(flow(piece), end="", soft_wrap=True)
    rest = flow.rest()
    out.print(rest, end="" if (rest or answer).endswith("\n") else "\n", soft_wrap=True)
    guess = names(answer)
    told = f"{guess.language}, {guess.certainty:.0%} certain" if guess.language else "no language for certain"
    said = "language not told (extra lid)" if names.missing else told
    more = f"; cut after {most} tokens (--new-tokens)" if cut else ""
    out.print(Text(f"  {label} answer: {said}{more}", style="dim"))
    return guess.language
