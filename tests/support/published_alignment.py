"""The rule of Zhang et al. 2025 as released, in plain loops from its description: no tensors, nothing shared with lape."""

from __future__ import annotations

import math

Table = list[list[float]]


def probabilities(tokens: list[int], fires: list[list[int]]) -> Table:
    """Per language and neuron; what was counted more often than there are tokens counts as often."""
    return [[min(count, of) / of for count in row] for of, row in zip(tokens, fires, strict=True)]


def score(column: list[float], weight: float) -> float:
    """One neuron's, from its probability in each language. What never fires is as if it fired equally in all."""
    languages, total = len(column), sum(column)
    entropy = 0.0
    for p in column:
        share = p / total if total else 1 / languages
        if share > 0:
            entropy -= share * math.log(share)
    harmonic = 0.0
    for k in range(languages):
        harmonic += 1 / (k + 1)
    return entropy / math.log(languages) - weight * max(column) / (harmonic / languages)


def scores(p: Table, weight: float) -> list[float]:
    return [score([row[j] for row in p], weight) for j in range(len(p[0]))]


def limit(p: Table, bar: float) -> float:
    """The round(bar · n)-th smallest of all n probabilities."""
    everything = sorted(x for row in p for x in row)
    return everything[round(len(everything) * bar) - 1]


def kept(p: Table, weight: float, rate: float) -> list[int]:
    """The lowest scores, of all neurons; the first of equal ones."""
    value = scores(p, weight)
    ranked = sorted(range(len(value)), key=lambda j: (value[j], j))
    return sorted(ranked[: round(rate * len(value))])


def sets(p: Table, weight: float, rate: float, bar: float) -> list[list[int]]:
    """Per language, the kept neurons strictly above the limit in it."""
    over = limit(p, bar)
    return [[j for j in kept(p, weight, rate) if row[j] > over] for row in p]


def by_languages(p: Table, weight: float, rate: float, bar: float) -> list[int]:
    """How many kept neurons belong to 0, 1, … languages."""
    over, found = limit(p, bar), [0] * (len(p) + 1)
    for j in kept(p, weight, rate):
        found[sum(row[j] > over for row in p)] += 1
    return found


def sweep(p: Table, rate: float, bar: float) -> float | None:
    """The search for the weight: both ends, then halving until at most a thousandth is left; the last that passed is the answer."""

    def passes(weight: float) -> bool:
        return by_languages(p, weight, rate, bar)[-1] == 0

    answer = None
    if passes(0.0):
        answer = 0.0
    if passes(0.2):
        answer = 0.2
    low, high = 0.0, 0.2
    while high - low > 0.001:
        middle = (low + high) / 2
        if passes(middle):
            answer, low = middle, middle
        else:
            high = middle
    return answer
