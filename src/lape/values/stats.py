"""`ActivationStats`: what was counted, per language and neuron; how it merges, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lape.data.languages import tag
from lape.errors import FileError, MismatchError, OptionError, TextError
from lape.store import files, shards
from lape.store.lazy import FromFile, Join, Together, later
from lape.values.same import check_same_model
from lape.values.space import NeuronSpace

KIND = "activation statistics"
HEADER = ("languages", "space", "manifest")
COUNTS = ("tokens", "routed", "fires")
SUMS = ("sum", "square", "positive", "residual", "attribution", "attributed")
EXTRAS = {
    "residual": "--residual",
    "attribution": "--attribution 5k",
    "texts": "--per-text",
    "histogram": "--histogram",
    "variation": "--tuned TAG=PATH",
}
"""What only an option of `lape record` records. All of it adds when merged, but for `texts`, which are joined, and `variation`, which
must be the same.
"""


@dataclass(frozen=True)
class LanguageStats:
    """What was counted in one language. Tensors are read from the file when asked for."""

    tensors: Mapping[str, Tensor]

    @property
    def tokens(self) -> Tensor:
        """(folds,) int64: counted tokens."""
        return self.tensors["tokens"]

    @property
    def routed(self) -> Tensor:
        """(folds, stretches) int64: tokens that reached each stretch; in a dense model, all of them."""
        return self.tensors["routed"]

    @property
    def fires(self) -> Tensor:
        """(folds, neurons) int64: tokens on which each neuron's activation is above 0."""
        return self.tensors["fires"]

    @property
    def fingerprints(self) -> Tensor:
        """(lines,) int64: by which recorded text is recognised."""
        return self.tensors.get("fingerprints", torch.empty(0, dtype=torch.int64))

    def sums(self, name: str) -> Tensor:
        """(neurons,) float64: the sum of the activation (`sum`), its square (`square`) or its positive part (`positive`);
        `residual`: (layers, width) float64. Raises OptionError where they were not recorded.
        """
        if name not in self.tensors:
            raise OptionError(
                f"These statistics hold no {name!r}: they were made from counts, or without that option. "
                f"Record them with lape record {EXTRAS.get(name, '')}".rstrip()
                + "."
            )
        return self.tensors[name]

    def extra(self, name: str) -> Tensor:
        """`texts`: (texts, neurons) float16, the mean activation over the counted tokens of each text; `histogram`: (neurons, bins)
        int64, counted tokens in each bin of `lape.values.histogram`; `variation`: (neurons,) float64, see `ActivationStats.variation`. Raises
        OptionError naming the option that records it.
        """
        if name not in self.tensors:
            raise OptionError(f"These statistics hold no {name!r}. Record them anew with lape record {EXTRAS[name]}.")
        return self.tensors[name]


@dataclass(frozen=True)
class ActivationStats:
    """Counts and sums of every neuron in every language, and where they came from.

    Counts are kept in folds and merge exactly; sums are kept once, in float64.
    """

    space: NeuronSpace
    by_language: Mapping[str, LanguageStats]
    manifest: dict[str, Any]

    @property
    def languages(self) -> list[str]:
        """The language tags, in the order recorded."""
        return list(self.by_language)

    @property
    def folds(self) -> int:
        """Into how many folds counts are split."""
        return len(next(iter(self.by_language.values())).tokens)

    def canonical(self, language: str) -> str:
        """The standard tag of a recorded language. Raises TextError for one that was not recorded."""
        standard = tag(language)
        if standard not in self.by_language:
            raise TextError(f"{standard} was not recorded. Recorded: {', '.join(self.languages)}.")
        return standard

    def __getitem__(self, language: str) -> LanguageStats:
        return self.by_language[self.canonical(language)]

    @classmethod
    def from_counts(
        cls, languages: Sequence[str], tokens: Sequence[int], fires: Tensor, manifest: dict[str, Any] | None = None
    ) -> ActivationStats:
        """Statistics from counts made elsewhere: `fires` (languages, layers, width), one fold, no sums."""
        if fires.dim() != 3 or len(languages) != len(fires) or len(tokens) != len(fires):
            raise OptionError(
                f"{len(languages)} languages, {len(tokens)} token counts and fires of shape {tuple(fires.shape)} do not fit. "
                "Expected (languages, layers, width)."
            )
        if (
            fires.is_floating_point()
            or bool((fires < 0).any())
            or bool((fires.flatten(1).amax(1) > torch.tensor(tokens)).any())
        ):
            raise OptionError("fires must be whole numbers from 0 to the language's tokens.")
        _, layers, width = fires.shape
        space = NeuronSpace.dense(layers, width)
        by_language = {
            tag(language): LanguageStats(
                {
                    "tokens": torch.tensor([count]),
                    "routed": torch.full((1, layers), count),
                    "fires": fires[k].reshape(1, -1).long(),
                }
            )
            for k, (language, count) in enumerate(zip(languages, tokens, strict=True))
        }
        if len(by_language) != len(languages):
            raise OptionError(f"A language is named twice among {', '.join(languages)}.")
        return cls(space, by_language, manifest or {})

    def probabilities(self, denominator: str = "tokens", folds: Sequence[int] | None = None) -> Tensor:
        """(languages, neurons) float64: the share of a language's tokens on which a neuron fires (Tang et al. 2024, section 2.2).

        `denominator`: "tokens" (all counted tokens) or "routed" (those that reached the neuron's expert). `folds`: only these.
        """
        if denominator not in ("tokens", "routed"):
            raise OptionError(f"denominator is {denominator!r}. Expected tokens or routed.")
        return torch.stack([self._probability(one, denominator, folds) for one in self.by_language.values()])

    def _probability(self, one: LanguageStats, denominator: str, folds: Sequence[int] | None) -> Tensor:
        chosen = slice(None) if folds is None else torch.tensor(folds)
        fires = one.fires[chosen].sum(0)
        if denominator == "routed":
            per = self.space.per_neuron(one.routed[chosen].sum(0)).clamp_min(1)
            return fires.double() / per
        return fires.double() / max(int(one.tokens[chosen].sum()), 1)

    def routed(self, folds: Sequence[int] | None = None) -> Tensor:
        """(languages, stretches) int64: tokens that reached each stretch."""
        chosen = slice(None) if folds is None else torch.tensor(folds)
        return torch.stack([one.routed[chosen].sum(0) for one in self.by_language.values()])

    def mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean activation in a language, over the tokens that reached the neuron."""
        one = self[language]
        return one.sums("sum") / self.space.per_neuron(one.routed.sum(0)).clamp_min(1)

    def firing_mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean activation over the tokens on which the neuron fires; 0 where it never does."""
        one = self[language]
        return one.sums("positive") / one.fires.sum(0).clamp_min(1)

    def positive_mean(self, language: str, denominator: str = "tokens") -> Tensor:
        """(neurons,) float64: E[max(a, 0)] in a language, over all tokens or over those that reached the neuron."""
        one = self[language]
        if denominator == "routed":
            return one.sums("positive") / self.space.per_neuron(one.routed.sum(0)).clamp_min(1)
        return one.sums("positive") / max(int(one.tokens.sum()), 1)

    def others_mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean over the other languages of their mean activations."""
        own = self.canonical(language)
        others = [self.mean(other) for other in self.languages if other != own]
        if not others:
            raise OptionError(
                f"Only {own} was recorded, so there are no others to compare it with. Record two or more."
            )
        return torch.stack(others).mean(0)

    def attribution(self, language: str) -> Tensor:
        """(neurons,) float64: −a · ∂NLL/∂a in nats a token, the first-order estimate of the damage of zeroing each neuron."""
        one = self[language]
        return one.sums("attribution") / max(int(one.sums("attributed")), 1)

    def variation(self, language: str) -> Tensor:
        """(neurons,) float64: δ = ‖ΔW‖ / ‖W‖, how far tuning on the language moved each neuron's weights (`lape.recording.weight_change`)."""
        return self[language].extra("variation")

    def energy(self, language: str) -> Tensor:
        """(neurons,) float64: the mean square of the activation in a language, E[a²]."""
        one = self[language]
        return one.sums("square") / self.space.per_neuron(one.routed.sum(0)).clamp_min(1)

    def merge(self, other: ActivationStats) -> ActivationStats:
        """Add statistics of the same model on other text. Counts add exactly; sums agree to 1e-10 whatever the order. Nothing is added
        before it is asked for, and nothing kept: save the result, and load it, where it is read often.

        Raises MismatchError naming both values where model, tokenizer, neurons or counting rules differ, and for text that is in both.
        """
        self._same(other)
        manifest = _joined(self.manifest, other.manifest)
        merged: dict[str, LanguageStats] = {}
        for language in sorted({*self.by_language, *other.by_language}, key=[*self.languages, *other.languages].index):
            found = [s.by_language[language] for s in (self, other) if language in s.by_language]
            merged[language] = found[0] if len(found) == 1 else _added(language, *found)
        return ActivationStats(self.space, merged, manifest)

    def _same(self, other: ActivationStats) -> None:
        check_same_model(statistics=self.space, others=other.space)
        if self.folds != other.folds:
            raise MismatchError(
                f"These statistics have {self.folds} and {other.folds} folds. Record them with the same version of lape."
            )
        for key, name in (("model", "checksum"), ("tokenizer", "hash"), ("counting", None)):
            ours, theirs = self.manifest.get(key), other.manifest.get(key)
            if name is not None:
                ours, theirs = (ours or {}).get(name), (theirs or {}).get(name)
            if ours != theirs:
                what = f"{key} {name}" if name else key
                raise MismatchError(
                    f"These statistics come from different models or rules: {what} {ours} and {theirs}. "
                    "Record both with the same model, tokenizer and options."
                )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one safetensors file, in one step. Raises FileError for an existing one unless `overwrite`."""
        path = Path(path)
        files.refuse_existing(path, overwrite)
        tensors = {
            f"{language}/{name}": later(one.tensors, name)
            for language, one in self.by_language.items()
            for name in one.tensors
        }
        header = {
            "kind": KIND,
            "format": 1,
            "languages": self.languages,
            "space": self.space.to_json(),
            "manifest": self.manifest,
        }
        files.write_tensors(path, tensors, header)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        """Open a file, or a run's folder; its tensors are read when asked for."""
        path = Path(path)
        file = files.TensorFile(path / "stats.safetensors" if path.is_dir() else path, KIND, HEADER)
        space = NeuronSpace.from_json(file.header["space"])
        by_language = {language: LanguageStats(FromFile(file, f"{language}/")) for language in file.header["languages"]}
        for language, one in by_language.items():
            missing = [name for name in COUNTS if name not in one.tensors]
            if missing:
                raise FileError(f"{path} is damaged: {language} has no {', '.join(missing)}. Make it again.")
        return cls(space, by_language, file.header["manifest"])


def merge(parts: Iterable[ActivationStats]) -> ActivationStats:
    """Merge any number of statistics. Raises MismatchError where a text's shards are not all there."""
    result: ActivationStats | None = None
    for part in parts:
        result = part if result is None else result.merge(part)
    if result is None:
        raise OptionError("There is nothing to merge. Expected at least one file of statistics.")
    lacking = shards.missing(result.manifest.get("corpus", {}))
    if lacking:
        raise MismatchError(
            f"Not all shards are there. Missing: {'; '.join(lacking)}. Record them and merge all at once."
        )
    return result


def _added(language: str, a: LanguageStats, b: LanguageStats) -> LanguageStats:
    if set(a.tensors) != set(b.tensors):
        odd = ", ".join(sorted(set(a.tensors) ^ set(b.tensors)))
        raise MismatchError(f"{language}: only one of the two holds {odd}. Record both with the same options.")
    joins: dict[str, Join] = {name: torch.add for name in (*COUNTS, *SUMS, "histogram") if name in a.tensors}
    if "texts" in a.tensors:
        joins["texts"] = lambda first, second: torch.cat([first, second])
    if "variation" in a.tensors:
        if not torch.equal(a.tensors["variation"], b.tensors["variation"]):
            raise MismatchError(
                f"{language}: the two were recorded with different tuned checkpoints. Record both with the same --tuned {language}=PATH."
            )
        joins["variation"] = lambda first, _: first
    if "fingerprints" in a.tensors:
        known = torch.unique(torch.cat([a.fingerprints, b.fingerprints]))
        joins["fingerprints"] = lambda first, _: known.to(first.device)
    return LanguageStats(Together(a.tensors, b.tensors, joins))


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Manifests of merged statistics: corpora are listed, tuned checkpoints of all languages kept, the rest is the same."""
    result = dict(a)
    if a.get("corpus") or b.get("corpus"):
        result["corpus"] = shards.joined(a.get("corpus", {}), b.get("corpus", {}))
    if "options" in a:  # the corpora say which shards there are
        result["options"] = {**a["options"], "shard": None}
    tuned = {**b.get("tuned", {}), **a.get("tuned", {})}
    return {**result, "tuned": tuned} if tuned else result
