"""Made-up statistics and corpora: counts with known laws, no model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from lape.data.corpus import Corpus
from lape.values.histogram import BINS
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, LanguageStats

DENSE = NeuronSpace.dense(2, 10)
EXPERTS = NeuronSpace.of([(0, None, 5), (1, 0, 4), (1, 1, 4)])


def made_stats(
    seed: int = 0,
    languages: Sequence[str] = ("en", "fr", "zh"),
    space: NeuronSpace = DENSE,
    *,
    folds: int = 8,
    tokens: int = 400,
    sums: bool = False,
    written: bool = False,
    of: str | None = "made",
) -> ActivationStats:
    """Random counts of `tokens` to 2 · `tokens` a fold; in an expert, fewer tokens arrive. `of`: the model that they say they are of."""
    random = np.random.default_rng(seed)
    by_language = {}
    for language in languages:
        counted = random.integers(tokens, 2 * tokens, folds)
        share = np.array([1.0 if stretch.expert is None else random.uniform(0.3, 0.9) for stretch in space])
        routed = np.floor(counted[:, None] * share).astype(np.int64)
        widths = [stretch.width for stretch in space]
        fires = random.binomial(np.repeat(routed, widths, axis=1), random.beta(0.3, 2, len(space)))
        tensors = {"tokens": torch.tensor(counted), "routed": torch.tensor(routed), "fires": torch.tensor(fires)}
        tensors["fingerprints"] = torch.tensor(np.sort(random.integers(-(2**62), 2**62, 3)))
        if sums:
            for name in ("sum", "square", "positive"):  # the last two are never below 0
                drawn = torch.tensor(random.normal(size=len(space)) * 1000)
                tensors[name] = drawn if name == "sum" else drawn.abs()
            if written:
                tensors |= {"written": tensors["sum"] / 2, "written_square": tensors["square"] / 4}
            tensors["residual"] = torch.tensor(random.normal(size=(len(space.layers), 6)))
        by_language[language] = LanguageStats(tensors)
    manifest = {
        **({} if of is None else {"model": {"id": of, "checksum": "m1"}}),
        **({} if of is None else {"tokenizer": {"hash": "t1"}}),
        "counting": {"bos": "auto"},
        "corpus": {language: {"hash": f"{language}{seed}", "tokens": 1} for language in languages},
    }
    return ActivationStats(space, by_language, manifest)


def full_stats(
    seed: int = 7, languages: Sequence[str] = ("en", "fr", "zh"), space: NeuronSpace = DENSE
) -> ActivationStats:
    """Make statistics that hold all that can be recorded."""
    stats, random = made_stats(seed, languages, space, sums=True), torch.Generator().manual_seed(seed)
    by_language = {}
    for language in languages:
        tensors = dict(stats[language].tensors)
        tensors["attribution"] = torch.randn(len(space), generator=random, dtype=torch.float64)
        tensors["attributed"] = torch.tensor([100])
        tensors["texts"] = torch.randn(12, len(space), generator=random).half()
        tensors["histogram"] = torch.randint(0, 20, (len(space), BINS), generator=random)
        tensors["variation"] = torch.rand(len(space), generator=random, dtype=torch.float64)
        by_language[language] = LanguageStats(tensors)
    return dataclasses.replace(stats, by_language=by_language)


def made_corpus(lengths: Sequence[int], bos: int | None = None, special: frozenset[int] = frozenset()) -> Corpus:
    """A corpus of documents of these lengths, whose token at position i is 3 + i."""
    starts = np.cumsum([0, *lengths])
    tokens = np.arange(starts[-1], dtype=np.int32) + 3
    return Corpus("fr", tokens, starts, "", torch.empty(0, dtype=torch.int64), special, bos)


def same_tensors(a: ActivationStats, b: ActivationStats) -> bool:
    """Whether two statistics hold the same languages and bit-equal tensors."""
    if a.space != b.space or set(a.languages) != set(b.languages):
        return False
    return all(
        set(a[k].tensors) == set(b[k].tensors)
        and all(torch.equal(a[k].tensors[n], b[k].tensors[n]) for n in a[k].tensors)
        for k in a.languages
    )
