"""The model behind the page: it answers each prompt twice, as it is and steered, one answer after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from lape.data.language_id import Teller
from lape.detect.identify import identify, method_named
from lape.edit.edit import Edit
from lape.edit.steer import steered, steering
from lape.errors import OptionError
from lape.measure.generation import GenerationOptions, stream
from lape.measure.prompts import ask, prompt_ids, stops
from lape.model.body import text_config
from lape.model.find import find
from lape.model.identity import check_made_with
from lape.play.asking import Asked
from lape.play.firing import Firing
from lape.play.writing import Token, Written
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

LONGEST = 1000
"""Tokens of the longest prompt: a page is no place to wait for more."""
CHARACTERS = 32 * LONGEST
"""Characters of the longest prompt, looked at first: tokenizers take long to say how long a long text is."""


@dataclass(frozen=True)
class Answer:
    """One answer, whole or as far as it is written."""

    tokens: tuple[Token, ...] = ()
    language: str | None = None
    """The language that it seems to be in: a recorded one's tag, another's code, or None where none is certain or it was not told."""
    certainty: float = 0.0
    """How certain that is, 0 to 1."""

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(token.text for token in self.tokens)

    def mean(self, k: int) -> float | None:
        """The mean share of a language's neurons that fire on a token of it; None without tokens."""
        return sum(token.shares[k] for token in self.tokens) / len(self.tokens) if self.tokens else None


@dataclass(frozen=True)
class Answers:
    """Both answers to a prompt."""

    asked: Asked
    languages: tuple[str, ...]
    """Those that have neurons, in the order of every token's `shares`."""
    sizes: tuple[int, ...]
    """How many neurons each has."""
    usual: tuple[float, ...]
    """The share of each language's neurons that fires on a token of its own recorded text, on average."""
    unsteered: Answer = Answer()
    steered: Answer = Answer()
    done: bool = False
    """Whether both are whole."""

    def role(self, language: str) -> Literal["source", "target", "other"]:
        """What a language is to what was asked."""
        asked = self.asked
        return "target" if language == asked.target else "source" if language == asked.source else "other"

    def place(self, language: str) -> int:
        """Where a language stands in `sizes`, `usual` and every token's `shares`."""
        return self.languages.index(language)

    def strength_at(self, k: int) -> float:
        """How much of an edit acts while token k of the steered answer (from 0) is read, 0 to 1; the first generated position is the prompt's last."""
        steer, position = self.asked.steer, k + 1
        if steer.tokens == "prompt" or (steer.first is not None and position >= steer.first):
            return 0.0
        return float(steer.fade**position)


class Session:
    """A model that several people may ask at once: edits are isolated, so none sees another's."""

    def __init__(self, model: Any, tokenizer: Any, stats: ActivationStats, *, system: str | None = None) -> None:
        """`system`: what the model is told before every question. Raises MismatchError for statistics of another model."""
        check_made_with(model, tokenizer, statistics=stats)
        self.model, self.tokenizer, self.stats, self.system = model, tokenizer, stats, system
        self._sites = find(model)
        self._told = Teller(stats.languages)
        self._cached = lru_cache(16)(self._identified)

    def answer(self, asked: Asked) -> Answers:
        """Both answers, whole."""
        *_, last = self.answers(asked)
        return last

    def answers(self, asked: Asked) -> Iterator[Answers]:
        """Both answers, again and again as they are written; the last are whole (`done`).

        Raises OptionError or TextError for what cannot be asked, before anything is written.
        """
        neurons = self.neurons(asked)
        edits = steering(neurons, None, asked.steer, source=asked.source, to=asked.target)  # refuses what cannot be
        prompt = self._prompt(asked)
        own = copy_context()  # for its edit, whoever reads the answers, and from whichever thread
        answers = self._both(prompt, self._begun(asked, neurons), neurons, edits)
        try:
            while (now := own.run(next, answers, None)) is not None:
                yield now
        finally:
            own.run(answers.close)

    def _both(
        self, prompt: str, now: Answers, neurons: LanguageNeurons, edits: Sequence[Edit]
    ) -> Generator[Answers, None, None]:
        for one in self._written(prompt, now, neurons, nullcontext()):
            yield (now := replace(now, unsteered=one))
        for one in self._written(prompt, now, neurons, steered(self.model, edits, now.asked.steer, isolated=True)):
            yield (now := replace(now, steered=one))
        yield replace(now, done=True)

    def neurons(self, asked: Asked) -> LanguageNeurons:
        """The neurons of each language that an answer is steered by, and that are watched."""
        return self._cached(asked.method, *asked.amount(self.stats))

    def _identified(self, method: str, option: str, value: float) -> LanguageNeurons:
        one: dict[str, Any] = {option: value}
        found: LanguageNeurons = identify(self.stats, method_named(method), reliability=False, **one)
        return found

    def _prompt(self, asked: Asked) -> str:
        """The text that the model goes on from. Raises OptionError for an empty one, or one too long."""
        if not asked.prompt.strip():
            raise OptionError("There is no prompt. Type a question, or choose one of the examples.")
        text = asked.prompt
        if len(text) > CHARACTERS:
            raise OptionError(f"The prompt has {len(text):,} characters. Expected at most {CHARACTERS:,}: shorten it.")
        half = next((one for one in text if "\ud800" <= one <= "\udfff"), None)
        if half is not None:
            raise OptionError(f"The prompt holds {half!r}, half of a character. Type it anew, or take it out.")
        if not asked.bare:
            text = ask(self.tokenizer, text.strip(), source=asked.source, target=asked.target, system=self.system)
        tokens = len(prompt_ids(self.tokenizer, text))
        positions = getattr(text_config(self.model), "max_position_embeddings", None)
        room = positions - asked.new_tokens - 1 if isinstance(positions, int) else LONGEST
        if tokens > min(room, LONGEST):
            raise OptionError(
                f"The prompt has {tokens:,} tokens. Expected at most {max(min(room, LONGEST), 0):,}: shorten it, or ask for fewer new tokens."
            )
        return text

    def _begun(self, asked: Asked, neurons: LanguageNeurons) -> Answers:
        """What is known before the first token."""
        languages = tuple(language for language in neurons if len(neurons[language]))
        probabilities = dict(zip(self.stats.languages, self.stats.probabilities(), strict=True))
        usual = tuple(float(probabilities[language][neurons[language].flat].mean()) for language in languages)
        return Answers(asked, languages, tuple(len(neurons[language]) for language in languages), usual)

    def _written(
        self, prompt: str, now: Answers, neurons: LanguageNeurons, edits: AbstractContextManager[Any]
    ) -> Iterator[Answer]:
        """One answer as it is written. One token more is written than is shown, so that all that are shown have been read."""
        asked = now.asked
        ends = [] if asked.bare else stops(asked.target)
        begun = len(prompt_ids(self.tokenizer, prompt))
        firing = Firing(self.model, self._sites, neurons, now.languages)
        text = Written(self.tokenizer, ends)
        how = GenerationOptions(new_tokens=asked.new_tokens + 1, repetition_penalty=asked.repetition_penalty)
        pieces = stream(self.model, self.tokenizer, prompt, how, ends)
        with firing.watched(), edits, closing(pieces):
            for _ in pieces:
                yield Answer(text.so_far(firing.read[begun:]))
        tokens = text.whole(firing.read[begun:])
        told = self._told("".join(token.text for token in tokens))
        yield Answer(tokens, told.language, told.certainty)
