"""What is asked on the page: one frozen value, from which both answers and the Python snippet are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from lape.detect import DETECTORS
from lape.edit.steer import SteerOptions
from lape.errors import OptionError
from lape.options import AboveZero, Options, Positive, Rate
from lape.values.quantity import EXTRAS
from lape.values.stats import ActivationStats

PER_LANGUAGE = 100
"""Neurons of each language, unless told otherwise."""
MOST = 0.1
"""The highest rate."""
METHODS = {name: detector for name, detector in DETECTORS.items() if EXTRAS.keys().isdisjoint(detector.needs)}
"""Selection methods that read nothing but what every recording holds."""


@dataclass(frozen=True)
class Asked(Options):
    """A prompt, and how its second answer is steered."""

    prompt: str
    """A question to answer, or (`bare`) a text to go on with."""
    source: str
    """The language it is in."""
    target: str
    """The language that the second answer is steered to."""
    method: str = "difference"
    """How the neurons are chosen."""
    rate: Rate | None = None
    """How many neurons: as a share of all of the model's. `lape` keeps so many, other methods share them out among the languages.
    Default: `usual_rate`.
    """
    steer: SteerOptions = field(default_factory=SteerOptions)
    """What is done to them, and where."""
    new_tokens: Positive = 40
    """At most this many new tokens per answer."""
    repetition_penalty: AboveZero = 1.1
    """Divides the logits of tokens that occurred already (multiplies negative ones); 1 is none."""
    bare: bool = False
    """Give the prompt as it is, not as a question to answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise OptionError(f"method is {self.method!r}. Expected {', '.join(METHODS)}.")

    def amount(self, stats: ActivationStats) -> tuple[str, float]:
        """How many neurons are chosen, as the option of `lape.identify` that says so."""
        rate = usual_rate(stats) if self.rate is None else self.rate
        if self.method == "lape":
            return "rate", rate
        return "per_language", max(1, round(rate * len(stats.space) / len(stats.languages)))


def usual_rate(stats: ActivationStats) -> float:
    """The rate that gives about 100 neurons of each language, rounded to hundredths of a percent."""
    share = PER_LANGUAGE * len(stats.languages) / len(stats.space)
    return min(max(round(share, 4), 0.0001), MOST)
