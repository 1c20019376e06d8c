"""Whether an answer is fluent: its loss and its repetition at most what they are in native answers, by a bound with a guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lape.errors import OptionError
from lape.measure.answer_loss import answer_losses, ids_of
from lape.measure.generation import filler
from lape.model.loss import Head

FEWEST = 19
"""Native answers under which there is no bound: 19 / 20 of a fresh one and these is the largest of these."""
GUARANTEED = 39
"""Native answers from which on the two bounds together accept a fresh one with a probability of .95 or more; with fewer, n, 1 - 2 / (n + 1)."""
WANTED = 100
"""Native answers with which the bounds accept hardly more than .95 too; fewer are said in a note."""
_MEASURES = 2


def repetition(answer: str) -> float:
    """Share of an answer's character 4-grams that occurred before in it, 0 to 1; 1 - distinct-4."""
    grams = [answer[at : at + 4] for at in range(len(answer) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True)
class Written:
    """An answer with what the unedited model thinks of it when it stands alone."""

    text: str
    nll: NDArray[np.float64]
    """(tokens,) nats."""
    ends: NDArray[np.int64]
    """(tokens,) where each token ends in the text."""

    @classmethod
    def of(cls, tokenizer: Any, text: str, nll: NDArray[np.float64]) -> Written:
        """From a text and the loss of its tokens, of which the first may have none."""
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [len(tokenizer.decode(ids[: at + 1])) for at in range(len(ids))]
        return cls(text, nll, np.array(pieces[len(ids) - len(nll) :], np.int64))

    def at(self, tokens: int) -> tuple[float, float]:
        """(mean loss, repetition) of the first so many tokens."""
        tokens = min(tokens, len(self.nll))
        return float(self.nll[:tokens].mean()), repetition(self.text[: int(self.ends[tokens - 1])])


def written(model: Any, tokenizer: Any, head: Head, answers: Sequence[str]) -> list[Written]:
    """What the model, unedited, thinks of answers that stand alone."""
    pairs = [ids_of(tokenizer, "", answer) for answer in answers]
    if pairs and not pairs[0][0]:  # no BOS: the first token is not scored, the rest follows it
        pairs = [(answer[:1], answer[1:]) for _, answer in pairs]
    losses = answer_losses(model, head, pairs, filler(tokenizer))
    return [Written.of(tokenizer, text, loss) for text, loss in zip(answers, losses, strict=True)]


def joint_rank(values: NDArray[np.float64]) -> int:
    """The r, 1 to n, for which a fresh answer is at most the r-th smallest value in both measures with a probability of .95 or more.

    `values` (n, 2) float64, of n native answers. Split conformal prediction (Vovk et al. 2005) on one score, the larger of an answer's ranks in the two
    measures. Were the fresh answer ranked among the others, its score would be among the ⌈.95 (n + 1)⌉ smallest of all n + 1 with a probability of
    .95, however the measures depend on each other; it raises the rank of each of the others by 1 at most, so that one rank more than theirs is
    enough. Equal values share the lowest rank, in the answer's favour. Under 59 answers no rank below n is enough: n, the largest value of each, which
    a fresh answer exceeds in either with a probability of 2 / (n + 1) at most, .05 from 39 on.

    Example:
        >>> import numpy as np
        >>> from lape.measure.answer_fluency import joint_rank
        >>> alike = np.arange(100.0)
        >>> joint_rank(np.stack([alike, alike], 1)), joint_rank(np.stack([alike, -alike], 1)), joint_rank(np.zeros((20, 2)))
        (97, 99, 20)
    """
    n = len(values)
    inside = -(-19 * (n + 1) // 20)
    if inside > n - _MEASURES:
        return n
    lowest = np.stack([np.searchsorted(np.sort(column), column) + 1 for column in values.T])
    return int(np.sort(lowest.max(0))[inside - 1]) + 1


class Bounds:
    """The loss and the repetition that a fluent answer in a language has at most, from native answers.

    Native are the model's own answers, unedited, to questions in the language, other ones than are reported. An answer and they are cut to the same
    number of tokens: those of the answer where enough of them are as long, else the largest number at which enough are. Enough: half of
    them, 19 to 39. The guarantee is of answers to questions of the same kind, as if
    all had been shuffled before some became native ones, and whose beginning does not depend on how long they get.
    """

    def __init__(self, native: Sequence[Written]) -> None:
        """Raises OptionError for fewer than 19 native answers that are not empty."""
        self._native = [one for one in native if len(one.nll)]
        count = len(self._native)
        if count < FEWEST:
            raise OptionError(
                f"Only {count} native answers are not empty, and what counts as fluent is estimated from them. Expected at least {FEWEST}, better "
                f"{WANTED}: ask {FEWEST - count} more questions than now in the language."
            )
        lengths = sorted((len(one.nll) for one in self._native), reverse=True)
        self._longest = lengths[max(FEWEST, min(GUARANTEED, count // 2)) - 1]
        self._at: dict[int, tuple[int, NDArray[np.float64]]] = {}

    def _known(self, tokens: int) -> tuple[int, NDArray[np.float64]]:
        """(native answers, (2,) largest loss and repetition) at a length."""
        if tokens not in self._at:
            values = np.array([one.at(tokens) for one in self._native if len(one.nll) >= tokens])
            self._at[tokens] = len(values), np.sort(values, axis=0)[joint_rank(values) - 1]
        return self._at[tokens]

    def cut(self, answer: Written) -> int:
        """The tokens of an answer that are judged."""
        return min(len(answer.nll), self._longest)

    def calibrated_on(self, answer: Written) -> int:
        """How many native answers made the bounds for an answer of this length; 0 for an empty one."""
        tokens = self.cut(answer)
        return self._known(tokens)[0] if tokens else 0

    def fluent(self, answer: Written) -> bool:
        """Whether an answer's loss and repetition are both at most the bounds at its length. An empty one is not fluent.

        One-sided: a likelier or less repetitive answer than the native ones is fluent.
        """
        tokens = self.cut(answer)
        return bool(tokens and (np.array(answer.at(tokens)) <= self._known(tokens)[1]).all())
