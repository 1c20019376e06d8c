"""One language's sentences in several writings: the same lines for all, so that sets and losses can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

from lape.data.corpus import TextOptions
from lape.data.rewriting import Writing, converted, equal_noise, noised, private_tag, romanised, shuffled, variant_tag
from lape.data.texts import Source, documents
from lape.errors import OptionError
from lape.options import Tokens, positive

UNCHANGED = 0.5
"""A writing that leaves at least this share of the lines as they were is none: English in ASCII is English."""
_AT_ONCE = 256


@dataclass(frozen=True)
class ScriptOptions:
    """How it is asked whether language neurons follow the script or the language."""

    kinds: tuple[Writing, ...] = get_args(Writing)
    """Which writings are tried."""
    tokens: Tokens = 20_000
    """Tokens of each language's text, as natively written, whose lines are recorded in every writing."""
    evaluation_tokens: Tokens = 6_000
    """Tokens of each language's other text, as natively written, whose lines the damage is measured on."""
    apart: bool = False
    """Each evaluated line is read by itself, and is a unit of the bootstrap: for lines that do not come from one text."""
    steps: int = 8
    """How often the range of noise is halved to find the one that costs as much as romanised text."""
    resamples: int = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of the word orders, the noise and the bootstrap."""

    def __post_init__(self) -> None:
        positive(self, "tokens", "evaluation_tokens", "steps", "resamples")
        unknown = [kind for kind in self.kinds if kind not in get_args(Writing)]
        if unknown:
            raise OptionError(
                f"There is no kind of writing {unknown[0]!r}. Expected some of: {', '.join(get_args(Writing))}."
            )


@dataclass(frozen=True)
class Written:
    """The lines of one language in one writing."""

    kind: str
    tag: str
    by: str
    recorded: list[str]
    """Lines that are recorded."""
    evaluated: list[str]
    """Lines of other text, on which losses are measured."""
    rate: float | None = None
    """Share of letters replaced, for noise."""
    reached: bool | None = None
    """Whether the noise costs as much as the romanised text."""


def first_lines(source: Source, tokens: int, tokenizer: Any, options: TextOptions) -> list[str]:
    """The first lines of a source, empty ones left out, up to the one at which they hold `tokens` tokens."""
    lines, count = [], 0
    every = _lines(source, options)
    while some := list(islice(every, _AT_ONCE)):
        encoded = tokenizer(some, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        for line, ids in zip(some, encoded, strict=True):
            lines.append(line)
            count += len(ids)
            if count >= tokens:
                return lines
    return lines


def _lines(source: Source, options: TextOptions) -> Iterator[str]:
    for pieces in documents(source, rule=options.document, column=options.column):
        for piece in pieces:
            yield from filter(None, map(str.strip, piece.split("\n")))


def native(language: str, recorded: list[str], evaluated: list[str]) -> Written:
    """The lines as they are, under a tag of their own: `fr-x-native`."""
    return Written("native", private_tag(language, "native"), "", recorded, evaluated)


def rewritten(own: Written, language: str, options: ScriptOptions) -> list[Written]:
    """The native lines in every writing that needs no model, those that change too little left out.

    The romanised one comes along where only noise is wanted, since the noise is measured by it.
    """
    ways: dict[str, Callable[[list[str]], tuple[list[str], str]]] = {
        "romanised": lambda lines: romanised(lines, language),
        "converted": lambda lines: converted(lines, variant_tag(language, "converted")),
        "shuffled": lambda lines: shuffled(lines, language, options.seed),
    }
    wanted = {*options.kinds, *(["romanised"] if "noised" in options.kinds else [])}
    made = [_made(own, language, kind, way) for kind, way in ways.items() if kind in wanted and _has(language, kind)]
    return [one for one in made if _differs(one.recorded, own.recorded)]


def _has(language: str, kind: str) -> bool:
    try:
        variant_tag(language, kind)
    except OptionError:  # no second script
        return False
    return True


def _made(own: Written, language: str, kind: str, way: Callable[[list[str]], tuple[list[str], str]]) -> Written:
    recorded, by = way(own.recorded)
    return Written(kind, variant_tag(language, kind), by, recorded, way(own.evaluated)[0])


def _differs(lines: Sequence[str], native_lines: Sequence[str]) -> bool:
    same = sum(a == b for a, b in zip(lines, native_lines, strict=True))
    return same <= UNCHANGED * len(lines)


def noisy(
    own: Written, like: Written, language: str, nats: Callable[[Sequence[str]], float], options: ScriptOptions
) -> Written:
    """Native lines with as much noise as makes them cost what `like` does.

    The rate is found on recorded lines, as many as are evaluated, and is the same on the evaluated ones.
    """
    part = slice(len(own.evaluated))
    _, rate, reached = equal_noise(
        own.recorded[part], nats, nats(like.recorded[part]), seed=options.seed, steps=options.steps
    )
    recorded, evaluated = (noised(lines, rate, options.seed) for lines in (own.recorded, own.evaluated))
    return Written("noised", variant_tag(language, "noised"), "lape", recorded, evaluated, rate, reached)
