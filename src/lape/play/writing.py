"""An answer token by token: the text that each adds, beside the shares of neurons that fired on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lape.measure.prompts import first_of
from lape.play.firing import Read

_UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Token:
    """A token of an answer."""

    text: str
    """What it adds to the text. Where a character is cut into several tokens it stands on the last of them."""
    shares: tuple[float, ...]
    """For each language, the share of its neurons that fire on it."""


class Written:
    """Puts tokens into words as they come. The words are those of the whole answer decoded at once."""

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        """`stops`: where the first of them begins, the answer is over."""
        self._tokenizer, self._stops = tokenizer, stops
        self._ids: list[int] = []
        self._tokens: list[Token] = []
        self._shown = ""

    def so_far(self, read: Sequence[Read]) -> tuple[Token, ...]:
        """The tokens of an answer that goes on. `read`: all of it so far."""
        for one in read[len(self._ids) :]:
            self._ids.append(one.id)
            text = self._decoded()
            whole = text.startswith(self._shown) and not text.endswith(_UNFINISHED)
            self._tokens.append(Token(text[len(self._shown) :] if whole else "", one.shares))
            self._shown = text if whole else self._shown
        return self._cut(self._tokens)

    def whole(self, read: Sequence[Read]) -> tuple[Token, ...]:
        """The tokens of an answer that is over."""
        self.so_far(read)
        text = self._decoded() if self._ids else ""
        tokens, shown = self._tokens, self._shown
        # a tokenizer that goes back over what it wrote: all of it stands on the last token
        if not text.startswith(shown):
            tokens, shown = [Token("", token.shares) for token in tokens], ""
        if text != shown:
            *tokens, last = tokens
            tokens.append(Token(last.text + text[len(shown) :], last.shares))
        return self._cut(tokens)

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def _cut(self, tokens: Sequence[Token]) -> tuple[Token, ...]:
        """Those before the first stop."""
        left = first_of("".join(token.text for token in tokens), self._stops)
        kept = []
        for token in tokens:
            if left <= 0 and token.text:
                break
            kept.append(Token(token.text[:left], token.shares))
            left -= len(token.text)
        return tuple(kept)
