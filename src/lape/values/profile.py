"""`Profile`: what language neurons carry of the statistics they were found in, so that they steer without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lape.data.languages import check_tags, tag
from lape.errors import FileError, OptionError, TextError
from lape.store.documents import misfit
from lape.store.tensors import TensorFile
from lape.values.space import NeuronSpace
from lape.values.stats import ActivationStats, others_mean

TABLES = ("probabilities", "means", "firing_means")
"""(languages, selected) float64 each."""
SCORES = "scores"
"""(selected,) float64; older files hold it of all neurons, under this name alone."""
RECORDED = "recorded"
"""In the header of a file: the languages."""
_PREFIX = "profile/"
_SUMS = ("sum", "positive")


@dataclass(frozen=True, eq=False)
class Profile:
    """How the selected neurons act in every recorded language, and the score that each was selected by.

    All tensors are float64 on the CPU, with one column (or value) per selected neuron, in the order of `flat`. Means are over the tokens that
    reached the neuron, without unit. They are None where the statistics were made from counts alone.
    """

    space: NeuronSpace
    flat: Tensor
    """(selected,) int64: sorted flat indices of the neurons of any language's set."""
    languages: tuple[str, ...]
    """Those that were recorded, whether or not they have neurons: the rows of the tables."""
    probabilities: Tensor
    """(languages, selected): the share of all counted tokens on which the activation is above 0."""
    means: Tensor | None = None
    """(languages, selected): the mean activation."""
    firing_means: Tensor | None = None
    """(languages, selected): the mean activation over the tokens on which it is above 0; 0 where it never is."""
    scores: Tensor | None = None
    """(selected,): the method's score; for LAPE the entropy in nats. None for methods that score neurons language by language."""

    @classmethod
    def of(cls, stats: ActivationStats, flat: Tensor, scores: Tensor | None = None) -> Profile:
        """Of some neurons, (selected,) sorted flat indices; `scores` (neurons,): of all neurons of the model."""
        summed = all(name in one.tensors for one in stats.by_language.values() for name in _SUMS)
        return cls(
            space=stats.space,
            flat=flat,
            languages=tuple(stats.languages),
            probabilities=torch.stack([stats.probability(one)[flat] for one in stats.languages]),
            means=torch.stack([stats.mean(one)[flat] for one in stats.languages]) if summed else None,
            firing_means=torch.stack([stats.firing_mean(one)[flat] for one in stats.languages]) if summed else None,
            scores=None if scores is None else scores[flat].double(),
        )

    def mean(self, language: str) -> Tensor:
        """(neurons,) float64 over the whole model: `ActivationStats.mean` at the selected neurons, 0 elsewhere."""
        return self.spread(self._summed(self.means)[self._row(language)])

    def firing_mean(self, language: str) -> Tensor:
        """(neurons,) float64 over the whole model: `ActivationStats.firing_mean` at the selected neurons, 0 elsewhere."""
        return self.spread(self._summed(self.firing_means)[self._row(language)])

    def others_mean(self, language: str) -> Tensor:
        """(neurons,) float64 over the whole model: `ActivationStats.others_mean` at the selected neurons, 0 elsewhere."""
        own, means = self._row(language), self._summed(self.means)
        return self.spread(others_mean(self.languages[own], [row for k, row in enumerate(means) if k != own]))

    def spread(self, values: Tensor, elsewhere: float = 0.0) -> Tensor:
        """(selected,) values -> (neurons,) float64 over the whole model."""
        return torch.full((len(self.space),), elsewhere, dtype=torch.float64).index_put_((self.flat,), values)

    def narrowed(self, flat: Tensor) -> Profile:
        """The same of these neurons alone, (n,) sorted flat indices. Raises OptionError for neurons that it says nothing of."""
        if torch.equal(flat, self.flat):
            return self
        missing = int((~torch.isin(flat, self.flat)).sum())
        if missing:
            raise OptionError(
                f"The profile says nothing of {missing:,} of the {len(flat):,} neurons in these sets. Give profile=None with sets of your own."
            )
        at = torch.isin(self.flat, flat)
        kept = {name: one[..., at] for name, one in self._held().items()}
        return Profile(self.space, flat, self.languages, **kept)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Profile)
            and (self.space, self.languages) == (other.space, other.languages)
            and torch.equal(self.flat, other.flat)
            and all(same(getattr(self, name), getattr(other, name)) for name in (*TABLES, SCORES))
        )

    def __hash__(self) -> int:
        return hash((self.space, self.languages, len(self.flat)))

    def __repr__(self) -> str:
        return f"Profile({len(self.flat):,} neurons: {self.holds})"

    @property
    def holds(self) -> str:
        """What there is, in words."""
        held = [name.replace("_", " ") for name in self._held() if self.languages or name == SCORES]
        recorded = f" in {len(self.languages)} languages" if self.languages else ""
        return f"{', '.join(held)}{recorded}"

    def tensors(self) -> dict[str, Tensor]:
        """For a file: its tensors by name."""
        return {_name(name): one for name, one in self._held().items()}

    @classmethod
    def read(cls, file: TensorFile, space: NeuronSpace, flat: Tensor) -> Profile | None:
        """What a file holds that was checked by `check`. Older ones hold at most scores, of all neurons of the model."""
        names = set(file.names())
        if _name(TABLES[0]) in names:
            held = {name: file.tensor(_name(name)) for name in (*TABLES, SCORES) if _name(name) in names}
            return cls(space, flat, tuple(file.header[RECORDED]), **held)
        none = torch.empty(0, len(flat), dtype=torch.float64)
        return cls(space, flat, (), none, scores=file.tensor(SCORES)[flat]) if SCORES in names else None

    def _held(self) -> dict[str, Tensor]:
        return {name: one for name in (*TABLES, SCORES) if (one := getattr(self, name)) is not None}

    def _row(self, language: str) -> int:
        standard = tag(language)
        if standard not in self.languages:
            raise TextError(f"{standard} was not recorded. Recorded: {', '.join(self.languages)}.")
        return self.languages.index(standard)

    def _summed(self, table: Tensor | None) -> Tensor:
        if table is None:
            raise OptionError(
                "These neurons were found in counts alone, so they carry no mean activations. Record the texts with lape.record, and identify again."
            )
        return table


def _name(table: str) -> str:
    return f"{_PREFIX}{table}"


def shapes(space: NeuronSpace, languages: Sequence[str], selected: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what a file may hold of a profile of these languages and so many neurons, all float64."""
    tables = dict.fromkeys(map(_name, TABLES), (len(languages), selected))
    return {**tables, _name(SCORES): (selected,), SCORES: (len(space),)}


def check(file: TensorFile) -> None:
    """Refuse a file that holds a part of a profile. Raises FileError."""
    held = set(file.names())
    whole, means, firing = map(_name, TABLES)
    if (means in held) != (firing in held) or (whole not in held and (means in held or _name(SCORES) in held)):
        raise FileError(f"Of {', '.join(map(_name, TABLES))} it holds only some.")
    if RECORDED in file.header:
        if wrong := misfit(file.header[RECORDED], [str], RECORDED):
            raise FileError(f"{wrong}.")
        if file.header[RECORDED]:
            check_tags(file.header[RECORDED])
    if whole in held and RECORDED not in file.header:
        raise FileError(f"It holds {whole}, and nothing says of which languages.")


def broken(name: str, tensor: Tensor) -> str | None:
    """What is impossible in one of a profile's tensors, in words."""
    if name in (SCORES, _name(SCORES)):
        return f"{name} holds values that are not numbers" if bool(tensor.isnan().any()) else None
    if name.startswith(_PREFIX) and not bool(tensor.isfinite().all()):
        return f"{name} holds values that are infinite or not numbers"
    if name in (_name("probabilities"), _name("firing_means")) and bool((tensor < 0).any()):
        return f"{name} holds values below 0"
    if name == _name("probabilities") and bool((tensor > 1).any()):
        return f"{name} holds shares above 1"
    return None


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors are equal, or both are None."""
    return torch.equal(a, b) if a is not None and b is not None else a is b
