"""One thought, `LanguageNeurons`: which neurons belong to which language, as a value, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor

from lape.data.languages import tag
from lape.errors import MissingLanguageError, OptionError, TextError
from lape.store import files
from lape.store.lock import Lock
from lape.store.run import NEURONS
from lape.values import made, neurons_file, published
from lape.values.heads import HeadSpace
from lape.values.neurons_file import Content
from lape.values.profile import Profile, same
from lape.values.same import check_same_model
from lape.values.shown import lines, listed, of_model, strip, table
from lape.values.space import NeuronSpace

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """A set of neurons of one space: sorted flat indices, (n,) int64, each once. `|`, `&` and `-` are those of sets.

    Raises OptionError for an index that is not in the space, MismatchError where sets of two models are combined.

    Example:
        >>> import torch
        >>> from lape.values.neurons import NeuronSet
        >>> chosen = NeuronSet(neurons.space, neurons.space.flat(layer=1, index=3) + torch.arange(2))
        >>> chosen.by_layer()
        {1: [3, 4]}
        >>> len(chosen | neurons["fr"]) <= 2 + len(neurons["fr"])
        True
        >>> chosen.addresses().row(0)
        (1, None, 3)
        >>> len(chosen.in_layers([0]))
        0
    """

    space: NeuronSpace
    flat: Tensor
    manifest: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Of the statistics they were found in: which model they are of, so that no other is edited by them."""

    def __post_init__(self) -> None:
        flat = torch.unique(self.flat.long())
        if len(flat) and (int(flat[0]) < 0 or int(flat[-1]) >= len(self.space)):
            raise OptionError(
                f"Neuron indices run from {int(flat[0])} to {int(flat[-1])}; expected 0 to {len(self.space) - 1}."
            )
        object.__setattr__(self, "flat", flat)

    def __len__(self) -> int:
        return len(self.flat)

    def __iter__(self) -> Iterator[int]:
        return iter(self.flat.tolist())

    def __contains__(self, flat: object) -> bool:
        return isinstance(flat, int) and bool((self.flat == flat).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NeuronSet) and self.space == other.space and torch.equal(self.flat, other.flat)

    def __hash__(self) -> int:
        return hash((self.space, tuple(self.flat.tolist())))

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.space, torch.cat([self.flat, other.flat]), self._with(other))

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.space, self.flat[torch.isin(self.flat, other.flat)], self._with(other))

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.space, self.flat[~torch.isin(self.flat, other.flat)], self._with(other))

    def _with(self, other: NeuronSet) -> Mapping[str, Any]:
        """What a set made of both says of its model."""
        check_same_model(neurons=self, others=other)
        return self.manifest or other.manifest

    def by_layer(self) -> dict[int, list[int]]:
        """Layer -> its neurons' `index` (see `addresses`; one expert's after another's), layers without any left out."""
        result: dict[int, list[int]] = {}
        for layer, _, index in self.addresses().iter_rows():
            result.setdefault(layer, []).append(index)
        return result

    def addresses(self) -> pl.DataFrame:
        """One row per neuron: `layer`, `expert` (null in a dense MLP), `index`; `NeuronSpace.flat` takes them back."""
        return self.space.addresses(self.flat)

    def in_layers(self, layers: Iterable[int]) -> NeuronSet:
        """Those that lie in some layers. Raises OptionError for a layer without neurons."""
        wanted = set(layers)
        unknown = sorted(wanted - set(self.space.layers))
        if unknown:
            raise OptionError(
                f"There is no layer {unknown[0]} with neurons. Expected some of {list(self.space.layers)}."
            )
        inside = torch.tensor([stretch.layer in wanted for stretch in self.space])
        return NeuronSet(self.space, self.flat[self.space.per_neuron(inside)[self.flat]], self.manifest)

    def __repr__(self) -> str:
        count = len(self.space.heads(self.flat)) if isinstance(self.space, HeadSpace) else len(self)
        return f"NeuronSet({count:,} of {self.space}, layers {layers_of(self)})"


def jaccard(a: NeuronSet, b: NeuronSet) -> float:
    """Jaccard similarity, from 0 to 1: shared neurons as a share of those in either; 0 where both are empty.

    Raises MismatchError for sets of two models.

    Example:
        >>> from lape.values.neurons import jaccard
        >>> f"{jaccard(neurons['en'], neurons['fr']):.2f}"
        '0.14'
    """
    union = len(a | b)
    return len(a & b) / union if union else 0.0


@dataclass(frozen=True, eq=False)
class LanguageNeurons(Mapping[str, NeuronSet]):
    """Language-specific neurons: language -> set. Sets overlap: a neuron may serve several languages; a language may have none.

    What `lape.identify` gives. With the sets comes all that they need to act alone (`profile`), so that the small file of `save` steers a model.
    Raises MissingLanguageError, a KeyError, for a language that has no set, OptionError for a profile of other neurons, FileError for a damaged file.

    Example:
        >>> neurons.languages
        ['en', 'fr', 'id', 'zh']
        >>> len(neurons["fr"]), len(neurons.only("fr")), len(neurons.union)
        (8, 6, 28)
        >>> neurons.scores.shape
        torch.Size([28])
        >>> neurons.get("de") is None, "de" in neurons
        (True, False)
        >>> neurons.made_from["statistics"] == stats.digest, neurons.made_from["neurons"] == neurons.digest
        (True, True)

    Sets of your own, from flat indices or from layers and indices:
        >>> import torch
        >>> from lape.values.neurons import NeuronSet
        >>> space = neurons.space
        >>> mine = lape.LanguageNeurons(space, {"fr": NeuronSet(space, torch.tensor([3, 17, space.flat(layer=1, index=5)]))})
        >>> mine["fr"].by_layer()
        {0: [3, 17], 1: [5]}
    """

    space: NeuronSpace
    sets: dict[str, NeuronSet]
    profile: Profile | None = None
    """How the selected neurons act in every recorded language, by which they `steer` alone, and their scores. None where sets are given by hand
    or read from a published .pth.
    """
    stability: dict[str, Tensor] = field(default_factory=dict)
    """Language -> (n,) float64, aligned with `neurons[language].flat`: the share of halves of the text that select each."""
    method: str = "given"
    options: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    """The manifest of the statistics they were found in."""
    fingerprints: Tensor | None = None
    """(fingerprints,) int64: by which the text they were found in is recognised."""
    notes: tuple[str, ...] = ()
    """What the method has to say about this result, in words."""

    def __post_init__(self) -> None:
        if self.profile is not None:
            object.__setattr__(self, "profile", self.profile.narrowed(self.union.flat))
        if self.manifest:
            said = {k: one if one.manifest else _of(one, self.manifest) for k, one in self.sets.items()}
            object.__setattr__(self, "sets", said)

    def __getitem__(self, language: str) -> NeuronSet:
        try:
            standard = tag(language)
        except TextError as error:
            raise MissingLanguageError(str(error)) from error
        if standard not in self.sets:
            raise MissingLanguageError(f"There are no neurons of {standard}. Languages here: {', '.join(self.sets)}.")
        return self.sets[standard]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    def __contains__(self, language: object) -> bool:
        try:
            return isinstance(language, str) and tag(language) in self.sets
        except TextError:
            return False

    def __eq__(self, other: object) -> bool:
        """Whether everything is the same: sets, scores, stability, and where they came from."""
        if not isinstance(other, LanguageNeurons):
            return NotImplemented
        plain = ("space", "sets", "profile", "method", "options", "manifest", "notes")
        return (
            all(getattr(self, name) == getattr(other, name) for name in plain)
            and same(self.fingerprints, other.fingerprints)
            and self.stability.keys() == other.stability.keys()
            and all(same(value, other.stability[language]) for language, value in self.stability.items())
        )

    def __hash__(self) -> int:
        return hash((self.space, self.method, tuple(self.sets.items())))

    def __repr__(self) -> str:
        rows = {
            "languages": listed(f"{language} {len(chosen):,}" for language, chosen in self.sets.items()),
            "layers": " · ".join(filter(None, [layers_of(self.union), self._stable()])),
        }
        return lines(f"LanguageNeurons({self._about()})", rows, self._notes())

    def _repr_html_(self) -> str:
        """For notebooks: each language's neurons, how they lie in the layers, and how stable they are."""
        columns = ["language", "neurons", "unshared", "by layer"]
        rows = [
            [
                language,
                f"{len(chosen):,}",
                f"{len(self.only(language)):,}",
                layers_of(chosen),
                _mean(self.stability.get(language)),
            ]
            for language, chosen in self.sets.items()
        ]
        columns += ["stability (mean)"] if self.stability else []
        shown = [row[: len(columns)] for row in rows]
        return table(f"LanguageNeurons: {self._about()}", columns, shown, self._notes())

    def _about(self) -> str:
        return f"{self.method}: {len(self.union):,} of {self.space}{of_model(self.manifest)}"

    def _notes(self) -> dict[str, list[str]]:
        plain = {k: one for k, one in self.options.items() if isinstance(one, (str, int, float))}
        every = (f"{k} {one:.3g}" if isinstance(one, float) else f"{k} {one}" for k, one in plain.items())
        return {
            "options": list(every),
            "carries": ["no activations" if self.profile is None else self.profile.holds],
        }

    def _stable(self) -> str:
        whole = torch.cat([torch.empty(0), *self.stability.values()])
        return f"stability {_mean(whole)} (mean)" if len(whole) else ""

    @property
    def languages(self) -> list[str]:
        """The language tags, in the order of the sets; those without a neuron too."""
        return list(self.sets)

    @property
    def scores(self) -> Tensor | None:
        """(selected,) float64, in the order of `union.flat`: the method's score of each; for LAPE the entropy in nats. None without one."""
        return None if self.profile is None else self.profile.scores

    @cached_property
    def union(self) -> NeuronSet:
        """The neurons of any language."""
        return NeuronSet(
            self.space,
            torch.cat([torch.empty(0, dtype=torch.int64), *(s.flat for s in self.sets.values())]),
            self.manifest,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of which neurons each language has: the same sets have the same, however they were chosen."""
        sets = {language: found.flat.tolist() for language, found in self.sets.items()}
        return made.digest({"space": self.space.to_json(), "sets": sets})

    @property
    def made_from(self) -> dict[str, Any]:
        """What a result that is measured with them says of them, and of the statistics they were found in."""
        known = {made.NEURONS: self.digest, "method": self.method, "size": len(self.union)}
        found_in = made.recorded_from(self.manifest)
        return known if found_in is None else {**known, made.STATISTICS: found_in}

    def only(self, language: str) -> NeuronSet:
        """The neurons of one language that no other language shares.

        Example:
            >>> len(neurons["fr"] - neurons["en"]) == len(neurons.only("fr"))
            True
        """
        result = self[language]
        for other in self.sets:
            if other != tag(language):
                result = result - self.sets[other]
        return result

    def overlap(self) -> pl.DataFrame:
        """One row per ordered pair: `a`, `b`, `shared` (neurons), `jaccard` (0 to 1). On the diagonal, the set with itself.

        Example:
            >>> neurons.overlap().filter(a="en", b="fr")["shared"].item()
            2
        """
        return pl.DataFrame(
            [
                {
                    "a": a,
                    "b": b,
                    "shared": len(self.sets[a] & self.sets[b]),
                    "jaccard": jaccard(self.sets[a], self.sets[b]),
                }
                for a in self.sets
                for b in self.sets
            ],
            schema={"a": pl.String, "b": pl.String, "shared": pl.Int64, "jaccard": pl.Float64},
        )

    def by_layer(self) -> pl.DataFrame:
        """One row per language and layer: `language`, `layer`, `neurons` (how many).

        Example:
            >>> neurons.by_layer().filter(language="fr").rows()
            [('fr', 0, 4), ('fr', 1, 4)]
        """
        return pl.DataFrame(
            [
                {"language": language, "layer": layer, "neurons": len(of_layer.get(layer, ()))}
                for language, of_layer in ((language, found.by_layer()) for language, found in self.sets.items())
                for layer in self.space.layers
            ],
            schema={"language": pl.String, "layer": pl.Int64, "neurons": pl.Int64},
        )

    def with_stability(self, stability: dict[str, Tensor]) -> LanguageNeurons:
        """The same with per-neuron stability: language -> (n,) float64, see `lape.detect.stability.stability`.

        Example:
            >>> from lape.detect.lape import lape as method
            >>> from lape.detect.stability import stability
            >>> steady = neurons.with_stability(stability(neurons, stats, method))
            >>> steady.stability["fr"].shape
            torch.Size([8])
        """
        return replace(self, stability=stability)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write our safetensors file, or, for a name that ends in .pth, the published `List[List[LongTensor]]`, and give its path.

        Raises FileError for an existing one unless `overwrite`, OptionError for a .pth of a model with experts, or several MLPs a layer.

        Example:
            >>> path = neurons.save("neurons.safetensors")
            >>> lape.LanguageNeurons.load(path) == neurons
            True
        """
        path = Path(path)
        with Lock(path):
            files.refuse_existing(path, overwrite)
            self._write(path)
        return path

    def _write(self, path: Path) -> None:
        sets = {language: chosen.flat for language, chosen in self.sets.items()}
        if path.suffix == ".pth":
            published.write(path, self.space, list(sets.values()))
            return
        same_names = {one.name: getattr(self, one.name) for one in fields(Content)}
        neurons_file.write(path, Content(**{**same_names, "sets": sets}))

    @classmethod
    def load(
        cls, path: str | Path, *, languages: Sequence[str] | None = None, width: int | None = None
    ) -> LanguageNeurons:
        """Read a file, or a run's folder. A published mask, a file of PyTorch's under any name, says neither its languages nor its width: give both.

        Such a mask is a list by language of lists by layer of index tensors, or a mapping of language tags to such lists, whose `languages` need
        not be given. Nothing in it is ever run. Raises FileError for a file that is not there or damaged, OptionError for a mask without its
        languages and width.

        Example:
            >>> path = neurons.save("published.pth")
            >>> there = lape.LanguageNeurons.load(path, languages=["en", "fr", "id", "zh"], width=1400)
            >>> there["fr"] == neurons["fr"]
            True
        """
        path = Path(path)
        if published.is_published(path):
            space, flat = published.read(path, languages, width)
            sets = {language: NeuronSet(space, one) for language, one in flat.items()}
            return cls(space=space, sets=sets, method="published", options={"file": path.name})
        held = neurons_file.read(path / NEURONS if path.is_dir() else path)
        same_names = {one.name: getattr(held, one.name) for one in fields(Content)}
        return cls(**{**same_names, "sets": {k: NeuronSet(held.space, flat) for k, flat in held.sets.items()}})

    def save_pretrained(
        self, folder: str | Path, *, repo_id: str | None = None, base_model: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write a folder of exactly what `push_to_hub` would publish, and give its path: see `lape.ship.hub.write`.

        Example:
            >>> folder = neurons.save_pretrained("published")
            >>> lape.LanguageNeurons.from_pretrained(folder).digest == neurons.digest
            True
        """
        from lape.ship.hub import write  # upward: the contract of imports names this line

        return write(self, folder, repo_id=repo_id, base_model=base_model, overwrite=overwrite)

    def push_to_hub(
        self, repo_id: str, *, base_model: str | None = None, private: bool = False, overwrite: bool = False
    ) -> str:
        """Publish them on the Hugging Face Hub, with a card, and give the address: see `lape.ship.hub.push`.

        Example:
            >>> _ = neurons.push_to_hub("me/neurons")
            >>> lape.LanguageNeurons.from_pretrained("me/neurons").digest == neurons.digest
            True
        """
        from lape.ship.hub import push  # upward, as above

        return push(self, repo_id, base_model=base_model, private=private, overwrite=overwrite)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> LanguageNeurons:
        """Read what was published: from a folder, or by its name on the Hugging Face Hub, OWNER/NAME, which is fetched once: see `lape.ship.hub.fetch`.

        Raises FileError where there is neither, where it holds no language neurons, and where the Hub cannot be reached.

        Example:
            >>> lape.LanguageNeurons.from_pretrained("run").languages
            ['en', 'fr', 'id', 'zh']
        """
        from lape.ship.hub import fetch_file  # upward, as above

        return cls.load(fetch_file(name, NEURONS, "language neurons", revision=revision))


def layers_of(neurons: NeuronSet) -> str:
    """How neurons lie in the layers: the first, a strip, the last."""
    layers, found = neurons.space.layers, neurons.by_layer()
    return f"{layers[0]} {strip([len(found.get(layer, ())) for layer in layers])} {layers[-1]}" if layers else ""


def _mean(shares: Tensor | None) -> str:
    return f"{float(shares.double().mean()):.2f}" if shares is not None and len(shares) else ""


def _of(neurons: NeuronSet, manifest: Mapping[str, Any]) -> NeuronSet:
    """The same set, which says what it was found in."""
    same = copy(neurons)
    object.__setattr__(same, "manifest", manifest)
    return same
