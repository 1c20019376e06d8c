"""LAPE's published rule, written again in plain loops from its description."""

from __future__ import annotations

import math

import numpy as np
import torch

from lape.values.stats import ActivationStats

Table = list[list[float]]


def counts(seed: int, languages: int = 3, layers: int = 3, width: int = 40) -> ActivationStats:
    """Counts of which hardly two neurons have equal entropy, and some neurons never fire."""
    random = np.random.default_rng(seed)
    tokens = random.integers(10**6, 10**7, languages)
    rate = random.beta(0.4, 2, (languages, layers, width))
    rate[:, random.random((layers, width)) < 0.1] = 0
    fires = random.binomial(tokens[:, None, None], rate)
    tags = ["en", "zh", "fr", "es", "vi", "id", "ja"][:languages]
    return ActivationStats.from_counts(tags, tokens.tolist(), torch.tensor(fires))


def table(*rows: list[int]) -> ActivationStats:
    """Statistics of one layer and 100 tokens per language, from how often each neuron fires in each language."""
    tags = ["en", "zh", "fr", "es"][: len(rows)]
    return ActivationStats.from_counts(tags, [100] * len(rows), torch.tensor(rows)[:, None, :])


def entropy_by_hand(column: list[float]) -> float:
    """Natural-log entropy of probabilities made to add up to 1; 0 · log 0 is 0, and so is a neuron that never fires."""
    total = sum(column)
    shares = [p / total if total else 0.0 for p in column]
    return -sum(q * math.log(q) for q in shares if q > 0)


def percentile_by_hand(p: Table, share: float) -> float:
    everything = sorted(x for row in p for x in row)
    return everything[round(len(everything) * share) - 1]


def published(p: Table, rate: float, filter_: float, bar: float) -> list[list[int]]:
    """Per language, the neurons that identify.py gives it."""
    neurons = range(len(p[0]))
    threshold, limit = percentile_by_hand(p, filter_), percentile_by_hand(p, bar)
    candidates = [j for j in neurons if any(row[j] > threshold for row in p)]
    ranked = sorted(candidates, key=lambda j: (entropy_by_hand([row[j] for row in p]), j))
    kept = ranked[: round(rate * len(neurons))]
    return [sorted(j for j in kept if row[j] > limit) for row in p]


def per_language_by_hand(p: Table, bar: float, count: int) -> list[list[int]]:
    """Per language the `count` lowest entropies above the bar, lowered to the `count`-th highest probability if need be."""
    limit = percentile_by_hand(p, bar)
    chosen = []
    for row in p:
        above = [j for j in range(len(row)) if row[j] > limit]
        if len(above) < count:
            above = sorted((j for j in range(len(row)) if row[j] > 0), key=lambda j: -row[j])[:count]
        ranked = sorted(above, key=lambda j: (entropy_by_hand([other[j] for other in p]), j))
        chosen.append(sorted(ranked[:count]))
    return chosen
