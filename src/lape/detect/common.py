"""What all selection methods share: the largest scores, and how a choice becomes `LanguageNeurons`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lape.errors import OptionError
from lape.values.neurons import LanguageNeurons, NeuronSet
from lape.values.profile import Profile
from lape.values.stats import ActivationStats


def largest(scores: Tensor, count: int, among: Tensor | None = None) -> Tensor:
    """Flat indices of the `count` largest of (neurons,) scores, the lower index first where they are equal.

    `among` (neurons,) bool: only these can be taken; scores that are -inf or nan never are.
    """
    usable = scores > -torch.inf
    if among is not None:
        usable &= among
    where = torch.nonzero(usable)[:, 0]
    order = scores[where].sort(descending=True, stable=True).indices
    return where[order[:count]]


def languages_of(stats: ActivationStats) -> list[str]:
    """The recorded languages. Raises OptionError where there is only one: nothing is specific to it."""
    if len(stats.languages) < 2:
        raise OptionError(
            f"Only {', '.join(stats.languages) or 'no language'} was recorded. Language neurons are found by comparing "
            "languages. Record two or more."
        )
    return stats.languages


def over_others(values: Tensor, how: str) -> Tensor:
    """(languages, neurons) -> each language's value minus the others' mean, or minus the largest of the others'."""
    if how == "mean":
        others = (values.sum(0, keepdim=True) - values) / (len(values) - 1)
        return values - others
    top = values.topk(2, dim=0)
    highest = torch.where(torch.arange(len(values))[:, None] == top.indices[0], top.values[1], top.values[0])
    return values - highest


def found(
    stats: ActivationStats,
    method: str,
    options: Any,
    flat: Mapping[str, Tensor],
    *,
    scores: Tensor | None = None,
    more: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    folds: Sequence[int] | None = None,
) -> LanguageNeurons:
    """Language -> flat indices, with all that says where they came from and how they act. `scores` (neurons,): of all neurons of the model.
    `more` is added to the options. `folds`: they were chosen from these folds alone, one of many halves, of which only the sets are wanted.

    Every method ends here: none chooses from statistics of some shards only.
    """
    stats.check_whole()
    sets = {language: NeuronSet(stats.space, chosen) for language, chosen in flat.items()}
    found = LanguageNeurons(space=stats.space, sets=sets, method=method)
    if folds is not None:
        return found
    return dataclasses.replace(
        known(found, stats, scores),
        options={**dataclasses.asdict(options), **(more or {})},
        notes=tuple(notes),
    )


def known(neurons: LanguageNeurons, stats: ActivationStats, scores: Tensor | None = None) -> LanguageNeurons:
    """The same neurons with what the statistics they were chosen from say of them: how they act, which model and text they are of.

    `scores` (neurons,): of all neurons of the model.
    """
    fingerprints = [stats[language].fingerprints for language in stats.languages]
    return dataclasses.replace(
        neurons,
        profile=Profile.of(stats, neurons.union.flat, scores),
        manifest=neurons.manifest or stats.manifest,
        fingerprints=torch.unique(torch.cat(fingerprints)),
    )


def each(
    stats: ActivationStats,
    score: Callable[[str], Tensor],
    count: int,
    *,
    above: float = -torch.inf,
    among: Tensor | None = None,
) -> dict[str, Tensor]:
    """For every language the `count` neurons of largest `score(language)` (neurons,), as long as it is over `above`.

    `among`: see `largest`.
    """
    chosen = {}
    for language in languages_of(stats):
        values = score(language)
        chosen[language] = largest(values, count, values > above if among is None else (values > above) & among)
    return chosen


def short(flat: Mapping[str, Tensor], count: int, why: str) -> list[str]:
    """A note for each language with fewer than `count` neurons."""
    return [f"{language}: only {len(one)} neurons {why}." for language, one in flat.items() if len(one) < count]
