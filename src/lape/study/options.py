"""What a study is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from lape.errors import OptionError
from lape.options import Tokens, check_candidates, check_grader, positive

QUICK = ("lape", "lap", "lave", "random", "matched")
FULL = (*QUICK, "variation", "difference", "difference:against=largest", "probability", "attribution")


@dataclass(frozen=True)
class StudyOptions:
    """How much of everything a study measures."""

    tokens: Tokens = 1000
    """Evaluation tokens of each language on average: lines of the parallel text, evenly spread over it, the same in all languages."""
    record_tokens: Tokens | None = None
    """At most this many tokens of each language are recorded. Default: all."""
    attribution: Tokens = 2000
    """Tokens of each language on which attributions are recorded."""
    domain_tokens: Tokens = 10_000
    """Tokens of each language of the parallel text that are recorded, as the other domain."""
    main: str | None = "en"
    """A language of which nothing specific is expected; it is measured, but left out of averages over languages."""
    methods: tuple[str, ...] | None = None
    """Ways of choosing that are compared, with options where wanted (difference:against=largest). Default: all that the statistics allow,
    but for alignment, ap and probability90; with quick, the paper's.
    """
    sizes: tuple[int, ...] = (50, 200)
    """Neurons of each language at which every way of choosing is measured."""
    finer: tuple[int, ...] = (100,)
    """Further sizes for LAPE and for the difference of means."""
    rates: tuple[float, ...] = (0.001, 0.05)
    """Shares of all neurons at which LAPE's own effect is measured, beside the published 1 %."""
    draws: int = 3
    """Draws of each kind of control neurons."""
    script_tokens: Tokens = 4000
    """Tokens of each language's recorded text that are recorded again, romanised, converted, shuffled and noised."""
    questions: int = 20
    """Questions of each language that are answered with neurons off."""
    candidates: int = 4
    """Questions among which an answer's own must be likeliest to be on topic."""
    grader_url: str | None = None
    """An OpenAI-compatible endpoint that also marks those answers 1 to 10, such as http://127.0.0.1:8000/v1; its key: LAPE_GRADER_KEY."""
    grader_model: str | None = None
    """The model that is asked there."""
    groups: int = 300
    """Single neurons that are switched off one by one, spread over layers and deciles of energy."""
    necessity: str | None = None
    """The language on which that is measured. Default: the first beside the main one."""
    necessity_tokens: Tokens = 350
    """Tokens of that language on which it is measured."""
    sentences: int = 400
    """Parallel sentences whose similarity is measured."""
    resamples: int = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of every draw."""
    quick: bool = False
    """Only the perplexity matrix, the paper's four comparisons, and what needs no model."""
    batch_tokens: int = 2048
    """Tokens that run at once."""

    def __post_init__(self) -> None:
        positive(
            self,
            "tokens",
            "record_tokens",
            "attribution",
            "domain_tokens",
            "script_tokens",
            "questions",
            "sentences",
            "resamples",
        )
        check_candidates(self, "candidates")
        check_grader(self)
        if not self.sizes or any(size < 1 for size in (*self.sizes, *self.finer)):
            raise OptionError("sizes must name at least one number of neurons, each 1 or more.")
        if any(not 0 < rate < 1 for rate in self.rates):
            raise OptionError(f"rates are {self.rates}. Expected shares between 0 and 1, such as 0.01.")
        if self.draws < 1:
            raise OptionError(f"draws is {self.draws}. Expected 1 or more: no claim is judged without a control.")

    @property
    def compared(self) -> tuple[str, ...]:
        """The ways of choosing on the frontier."""
        return self.methods or (QUICK if self.quick else FULL)
