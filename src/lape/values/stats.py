"""One thought, `ActivationStats`: what was counted, per language and neuron, and its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lape.data.languages import check_tags, tag
from lape.errors import FileError, MismatchError, MissingLanguageError, OptionError, warn
from lape.signs import many
from lape.store import files, shards
from lape.store.documents import Schema
from lape.store.lazy import FromFile, later, like
from lape.store.lock import Lock
from lape.store.run import MANIFEST, STATS
from lape.store.tensors import TensorFile, write_tensors
from lape.values import made
from lape.values.laws import broken
from lape.values.merging import CLIPPED, added, joined
from lape.values.quantity import COUNTED, EXTRAS, WRITTEN, Quantity, described
from lape.values.same import check_adds_up
from lape.values.shown import lines, listed, of_model, rounded, table
from lape.values.space import NeuronSpace

KIND = "activation statistics"
FORMAT = 2
"""Of the file. 1: tensors are not described, and the written activation has no sums; it is still read. 2: `manifest["quantities"]` says of
every tensor what it is (see `lape.values.quantity`).
"""
HEADER: Mapping[str, Schema] = {"languages": [str], "space": list, "manifest": MANIFEST}
COUNTS = ("tokens", "routed", "fires")


@dataclass(frozen=True)
class LanguageStats:
    """What was counted in one language: `stats["fr"]`. Tensors are read from the file when asked for.

    Example:
        >>> french = stats["fr"]
        >>> french.tokens.shape, french.routed.shape, french.fires.shape
        (torch.Size([8]), torch.Size([8, 2]), torch.Size([8, 2800]))
        >>> bool((french.fires.sum(0) <= french.tokens.sum()).all())
        True
        >>> french.sums("square").shape, french.extra("texts").dtype, french.fingerprints.dtype
        (torch.Size([2800]), torch.float16, torch.int64)
    """

    tensors: Mapping[str, Tensor]
    """Name -> tensor; what each is, and how it merges, says `manifest["quantities"]` of the statistics."""

    def __repr__(self) -> str:
        return f"LanguageStats({int(self.tokens.sum()):,} tokens; holds {', '.join(self.tensors)})"

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
        """(fingerprints,) int64: by which recorded text is recognised (`lape.data.fingerprints`; one a line in files of older versions)."""
        return self.tensors.get("fingerprints", torch.empty(0, dtype=torch.int64))

    def sums(self, name: str) -> Tensor:
        """(neurons,) float64: the sum of the activation (`sum`), its square (`square`) or its positive part (`positive`), of the written
        activation (`written`) or its square (`written_square`); `residual`: (layers, width) float64. Raises OptionError where they were
        not recorded.
        """
        return self._held(name)

    def extra(self, name: str) -> Tensor:
        """`texts`: (texts, neurons) float16, the mean activation over the counted tokens of each text; `histogram`: (neurons, bins)
        int64, counted tokens in each bin of `lape.values.histogram`; `variation`: (neurons,) float64, see `ActivationStats.variation`;
        and whatever else was recorded. Raises OptionError naming the option that records it.
        """
        return self._held(name)

    def _held(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise OptionError(
                f"These statistics hold no {name!r}: they were made from counts, by an older version, or without that option. "
                f"Record them anew with lape record{_flag(name)}."
            )
        return self.tensors[name]


def _flag(name: str) -> str:
    """What to add to `lape record` for a tensor."""
    standard = name in WRITTEN or any(name == one.name for one in COUNTED)
    return "" if standard else f" {EXTRAS.get(name, f'--also {name}')}"


@dataclass(frozen=True)
class ActivationStats:
    """Activation statistics: counts and sums of every neuron in every language, and where they came from.

    What `lape.record` gives. Counts are kept in folds, in int64, and merge exactly; sums are kept once, in float64; tensors of a file are read
    when asked for. Activations are in their own unit, those of the MLP's activation function; (neurons,) runs over the whole model.
    Raises MissingLanguageError, a KeyError, for a language that was not recorded, OptionError for what was not, MismatchError where two models' are merged.

    Example:
        >>> stats.languages, stats.folds, stats.bos
        (['en', 'fr', 'id', 'zh'], 8, 'auto')
        >>> stats["fr"].tokens.sum()
        tensor(1691)
        >>> stats.probabilities().shape == (4, len(stats.space))
        True
        >>> stats.made_from == {"statistics": stats.digest}
        True
    """

    space: NeuronSpace
    by_language: Mapping[str, LanguageStats]
    manifest: dict[str, Any]
    """Which model, tokenizer, texts and options they were recorded with."""

    def __repr__(self) -> str:
        tokens = self._tokens()
        rows = {"tokens": listed(f"{k} {rounded(count)}" for k, count in tokens.items())}
        return lines(f"ActivationStats({self._about()})", rows, self._notes())

    def _repr_html_(self) -> str:
        """For notebooks: the counted tokens of each language."""
        rows = [[language, f"{count:,}"] for language, count in self._tokens().items()]
        return table(f"ActivationStats: {self._about()}", ["language", "counted tokens"], rows, self._notes())

    def _tokens(self) -> dict[str, int]:
        return {language: int(one.tokens.sum()) for language, one in self.by_language.items()}

    def _about(self) -> str:
        tokens = sum(self._tokens().values())
        count = len(self.languages)
        return f"{many(count, 'language')}, {tokens:,} tokens{of_model(self.manifest)}"

    def _notes(self) -> dict[str, list[str]]:
        held = dict.fromkeys(
            "counts" if name in COUNTS else name for one in self.by_language.values() for name in one.tensors
        )
        counting = [f"{k} {one}" for k, one in self.manifest.get("counting", {}).items() if one]
        folds = [f"{self.folds} folds"] if self.by_language else []
        clipped = [f"{k} {many(cells, 'cell')}" for k, cells in self.manifest.get(CLIPPED, {}).items()]
        return {
            "neurons": [str(self.space).replace(" neurons", "", 1)],
            "holds": sorted(held),
            "counting": [*folds, *counting],
            **({"clipped": clipped} if clipped else {}),
        }

    @property
    def languages(self) -> list[str]:
        """The language tags, in the order recorded."""
        return list(self.by_language)

    @property
    def folds(self) -> int:
        """Into how many folds counts are split."""
        return len(next(iter(self.by_language.values())).tokens)

    @property
    def bos(self) -> Literal["auto", "always", "never"]:
        """The rule by which rows of the recorded text began, auto, always or never, and so those of text that is measured with it."""
        found: Literal["auto", "always", "never"] = self.manifest.get("counting", {}).get("bos", "auto")
        return found

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what they were recorded from, whatever the order of merging (`lape.values.made.recorded_from`); of the
        counts themselves where nothing says that.
        """
        known = made.recorded_from(self.manifest)
        if known is not None:
            return known
        every = self.by_language.items()
        return made.digest({language: [one.tokens.tolist(), one.fires.sum(0).tolist()] for language, one in every})

    @property
    def made_from(self) -> dict[str, Any]:
        """What a result that is measured with them says of them."""
        return {made.STATISTICS: self.digest}

    def check_whole(self) -> None:
        """Raise MismatchError where only some of the shards of a text are there.

        Example:
            >>> part = lape.record(model, tokenizer, {"en": "en.txt"}, row_tokens=64, batch_tokens=64, shard="1/2")
            >>> part.check_whole()
            Traceback (most recent call last):
            ...
            lape.errors.MismatchError: ...
        """
        shards.check_whole(self.manifest)

    def canonical(self, language: str) -> str:
        """The standard tag of a recorded language. Raises MissingLanguageError for one that was not recorded.

        Example:
            >>> stats.canonical("fra_Latn")
            'fr'
        """
        standard = tag(language)
        if standard not in self.by_language:
            raise MissingLanguageError(f"{standard} was not recorded. Recorded: {', '.join(self.languages)}.")
        return standard

    def __getitem__(self, language: str) -> LanguageStats:
        return self.by_language[self.canonical(language)]

    @classmethod
    def from_counts(
        cls, languages: Sequence[str], tokens: Sequence[int], fires: Tensor, manifest: dict[str, Any] | None = None
    ) -> ActivationStats:
        """Statistics from counts made elsewhere: `fires` (languages, layers, width) whole numbers, one fold, no sums.

        Cells of `fires` above their language's `tokens` (some published counts have a few) are set to `tokens`, probability 1: one LapeWarning says how
        many there are in which languages, and so does `manifest["clipped"]`, language -> cells. Raises OptionError for what does not fit, and for
        numbers below 0 or not whole.

        Example:
            >>> import torch
            >>> counted = lape.ActivationStats.from_counts(["en", "fr"], [100, 90], torch.randint(0, 90, (2, 3, 50)))
            >>> counted.probability("fr").shape
            torch.Size([150])
        """
        if fires.dim() != 3 or len(languages) != len(fires) or len(tokens) != len(fires):
            raise OptionError(
                f"{len(languages)} languages, {len(tokens)} token counts and fires of shape {tuple(fires.shape)} do not fit. "
                "Expected (languages, layers, width)."
            )
        if fires.is_floating_point() or fires.is_complex():
            raise OptionError("fires must be whole numbers from 0 to the language's tokens.")
        _, layers, width = fires.shape
        space, clipped = NeuronSpace.dense(layers, width), {}
        by_language: dict[str, LanguageStats] = {}
        for language, given, row in zip(map(tag, languages), tokens, fires, strict=True):
            count = _whole(language, given)
            flat = row.reshape(1, -1).long()
            if over := int((flat > count).sum()):
                clipped[language] = over
            by_language[language] = LanguageStats(
                {
                    "tokens": torch.tensor([count]),
                    "routed": torch.full((1, layers), count),
                    "fires": flat.clamp(max=max(count, 0)),
                }
            )
        if len(by_language) != len(languages):
            raise OptionError(f"A language is named twice among {', '.join(languages)}.")
        for language, one in by_language.items():
            for name, tensor in one.tensors.items():
                if wrong := broken(name, tensor, one.tensors, space):
                    raise OptionError(f"{language}: {wrong}. Expected whole numbers from 0 to the language's tokens.")
        manifest = dict(manifest or {})
        if clipped:
            manifest[CLIPPED] = clipped
            warn(
                f"{many(sum(clipped.values()), 'cell')} of {fires.numel():,} in fires count more tokens than there are "
                f"({listed(f'{k} {cells:,}' for k, cells in clipped.items())}). They are set to the language's tokens, as if the neuron fired on every "
                "one. If that is more than a few, check that tokens and fires were counted on the same text."
            )
        return cls(space, by_language, manifest)

    def probabilities(self, denominator: str = "tokens", folds: Sequence[int] | None = None) -> Tensor:
        """(languages, neurons) float64: the share of a language's tokens on which a neuron fires (Tang et al. 2024, section 2.2).

        `denominator`: "tokens" (all counted tokens) or "routed" (those that reached the neuron's expert). `folds`: only these, numbered
        from 0. Raises OptionError for another denominator, and for a fold that there is not.

        Example:
            >>> half = stats.probabilities(folds=range(4))
            >>> half.shape, half.dtype
            (torch.Size([4, 2800]), torch.float64)
        """
        return torch.stack([self.probability(language, denominator, folds) for language in self.languages])

    def probability(self, language: str, denominator: str = "tokens", folds: Sequence[int] | None = None) -> Tensor:
        """(neurons,) float64, from 0 to 1: a language's row of `probabilities`.

        Example:
            >>> french = neurons.only("fr").flat
            >>> bool((stats.probability("fr")[french] > 0.9).all()), bool((stats.probability("zh")[french] > 0).any())
            (True, False)
        """
        one, chosen, routed = self[language], self._chosen(folds), _is_routed(denominator)
        fires = one.fires[chosen].sum(0)
        if routed:
            return fires.double() / self._reached(one, folds)
        return fires.double() / max(int(one.tokens[chosen].sum()), 1)

    def _reached(self, one: LanguageStats, folds: Sequence[int] | None = None) -> Tensor:
        """(neurons,) int64: the tokens of a language that reached each neuron, 1 where none did: means are over these."""
        return self.space.per_neuron(one.routed[self._chosen(folds)].sum(0)).clamp_min(1)

    def _chosen(self, folds: Sequence[int] | None) -> slice | Tensor:
        """An index of some folds, or of all. Raises OptionError for a fold that there is not."""
        if folds is None:
            return slice(None)
        if unknown := [fold for fold in folds if not 0 <= fold < self.folds]:
            raise OptionError(f"There is no fold {unknown[0]}. Expected numbers from 0 to {self.folds - 1}.")
        return torch.tensor(folds, dtype=torch.int64)

    def routed(self, folds: Sequence[int] | None = None) -> Tensor:
        """(languages, stretches) int64: tokens that reached each stretch; in a dense model, all that were counted.

        Example:
            >>> stats.routed()[0]
            tensor([1632, 1632])
        """
        return torch.stack([one.routed[self._chosen(folds)].sum(0) for one in self.by_language.values()])

    def mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean activation in a language, over the tokens that reached the neuron.

        Example:
            >>> means = stats.mean("fr")
            >>> f"{float(means[neurons['fr'].flat].mean()):.1f}, of all neurons {float(means.mean()):.1f}"
            '2.5, of all neurons -0.1'
        """
        one = self[language]
        return one.sums("sum") / self._reached(one)

    def firing_mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean activation over the tokens on which the neuron fires; 0 where it never does.

        Example:
            >>> never = stats["fr"].fires.sum(0) == 0
            >>> float(stats.firing_mean("fr")[never].max()), bool((stats.firing_mean("fr")[~never] > 0).all())
            (0.0, True)
        """
        one = self[language]
        return one.sums("positive") / one.fires.sum(0).clamp_min(1)

    def positive_mean(self, language: str, denominator: str = "tokens") -> Tensor:
        """(neurons,) float64: E[max(a, 0)] in a language.

        `denominator`: "tokens" (over all counted tokens) or "routed" (over those that reached the neuron's expert). Raises
        OptionError for another.

        Example:
            >>> product = stats.probability("fr") * stats.firing_mean("fr")
            >>> product.allclose(stats.positive_mean("fr"))
            True
        """
        one = self[language]
        if _is_routed(denominator):
            return one.sums("positive") / self._reached(one)
        return one.sums("positive") / max(int(one.tokens.sum()), 1)

    def others_mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean over the other languages of their mean activations. Raises OptionError where there are no others.

        Example:
            >>> difference = stats.mean("fr") - stats.others_mean("fr")
            >>> bool((difference[neurons["fr"].flat] > 1).all())
            True
        """
        own = self.canonical(language)
        return others_mean(own, [self.mean(other) for other in self.languages if other != own])

    def overall_mean(self) -> Tensor:
        """(neurons,) float64: the mean over languages of their mean activations, every language counting alike. Raises OptionError for a single language.

        Example:
            >>> parts = sum(stats.mean(language) for language in stats.languages)
            >>> bool(stats.overall_mean().allclose(parts / len(stats.languages)))
            True
        """
        if len(self.languages) < 2:
            raise OptionError(
                f"Only {', '.join(self.languages)} was recorded. A mean over languages needs two or more."
            )
        return torch.stack([self.mean(language) for language in self.languages]).mean(0)

    def attribution(self, language: str) -> Tensor:
        """(neurons,) float64: −a · ∂NLL/∂a in nats per token, the first-order estimate (gradient × activation) of the damage of zeroing each neuron.

        Recorded by `lape.record(…, attribution=TOKENS)`: the mean over so many tokens of the language.

        Example:
            >>> damage = stats.attribution("fr")
            >>> f"{float(damage[neurons['fr'].flat].sum()):.1f} nats per token"
            '0.4 nats per token'
        """
        one = self[language]
        return one.sums("attribution") / max(int(one.sums("attributed")), 1)

    def variation(self, language: str) -> Tensor:
        """(neurons,) float64: δ = ‖ΔW‖ / ‖W‖, how far tuning on the language moved each neuron's weights.

        Recorded by `lape.record(…, tuned={"fr": CHECKPOINT})`; the definition, ours, is at `lape.recording.weight_change.weight_changes`.

        Example:
            >>> most = stats.variation("fr").topk(10).indices
            >>> most.shape
            torch.Size([10])
        """
        return self[language].extra("variation")

    def energy(self, language: str) -> Tensor:
        """(neurons,) float64: the mean square of the activation in a language, E[a²], over the tokens that reached the neuron.

        Example:
            >>> deviation = (stats.energy("fr") - stats.mean("fr").square()).clamp_min(0).sqrt()
            >>> bool((deviation <= stats.energy("fr").sqrt()).all())
            True
        """
        one = self[language]
        return one.sums("square") / self._reached(one)

    def written_mean(self, language: str) -> Tensor:
        """(neurons,) float64: the mean written activation in a language, E[a·u], over the tokens that reached the neuron.

        It is activation × up, what the down projection reads (before a norm, where there is one between); in a plain MLP the activation
        itself. It has no unit: the mean of what a neuron adds to the residual stream is this times its column of the down projection.

        Example:
            >>> layer, _, index = neurons["fr"].addresses().row(0)
            >>> column = model.model.layers[layer].mlp.down_proj.weight[:, index]
            >>> added = stats.written_mean("fr")[stats.space.flat(layer, index)] * column
            >>> added.shape
            torch.Size([64])
        """
        return self._written(language, "written")

    def written_energy(self, language: str) -> Tensor:
        """(neurons,) float64: the mean square of the written activation in a language, E[(a·u)²], over the tokens that reached the neuron.

        Times ‖its column of the down projection‖² it is the mean squared length of what the neuron adds to the residual stream, where no
        norm stands before that projection.

        Example:
            >>> import torch
            >>> column = torch.cat([block.mlp.down_proj.weight.norm(dim=0) for block in model.model.layers])
            >>> strongest = (stats.written_energy("fr") * column.square()).argmax()
            >>> int(strongest) in neurons["fr"]
            True
        """
        return self._written(language, "written_square")

    def columns(self) -> Tensor:
        """(neurons,) float64: ‖w‖ of each neuron's column of the down projection, recorded by `lape.record(…, also="columns")`.

        Example:
            >>> lape.record(model, tokenizer, {"en": "en.txt"}, tokens=200, also="columns").columns().shape
            torch.Size([2800])
        """
        return self[self.languages[0]].extra("columns")

    def _written(self, language: str, name: str) -> Tensor:
        one = self[language]
        if name not in one.tensors:
            found = "of format 1, which kept none" if "sum" in one.tensors else "counts alone"
            raise OptionError(
                f"The statistics of {self.canonical(language)} hold no sums of the written activation (activation × up), since they are "
                f"{found}: record that text again with lape record."
            )
        return one.sums(name) / self._reached(one)

    def merge(self, other: ActivationStats) -> ActivationStats:
        """Add statistics of the same model on other text. Counts add exactly; sums agree to 1e-10 whatever the order. Nothing is added
        before it is asked for, and nothing kept: save the result, and load it, where it is read often.

        Raises MismatchError naming both values where model, tokenizer, neurons or counting rules differ, for text that is in both, and
        where only one of them holds some sums of a language: format 1 and format 2 do not add up to sums of all the text.

        Example:
            >>> english, french = (lape.record(model, tokenizer, {k: f"{k}.txt"}, tokens=200) for k in ("en", "fr"))
            >>> english.merge(french).languages
            ['en', 'fr']
        """
        self._same(other)
        manifest = joined(self.manifest, other.manifest)
        known = described(manifest)
        merged: dict[str, LanguageStats] = {}
        for language in sorted({*self.by_language, *other.by_language}, key=[*self.languages, *other.languages].index):
            found = [s.by_language[language] for s in (self, other) if language in s.by_language]
            both = [one.tensors for one in found]
            merged[language] = found[0] if len(both) == 1 else LanguageStats(added(language, known, *both))
        return ActivationStats(self.space, merged, manifest)

    def _same(self, other: ActivationStats) -> None:
        check_adds_up(statistics=self, others=other)
        if self.folds != other.folds:
            raise MismatchError(
                f"These statistics have {self.folds} and {other.folds} folds. Record them with the same version of lape."
            )
        ours, theirs = (one.manifest.get("counting") for one in (self, other))
        if ours != theirs:
            raise MismatchError(
                f"These statistics were counted by different rules: {ours} and {theirs}. Record both with the same options."
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one safetensors file, in one step, and give its path. Raises FileError for an existing one unless `overwrite`.

        Example:
            >>> path = stats.save("stats.safetensors")
            >>> lape.ActivationStats.load(path).digest == stats.digest
            True
        """
        path = Path(path)
        tensors = {
            f"{language}/{name}": later(one.tensors, name)
            for language, one in self.by_language.items()
            for name in one.tensors
        }
        header = {
            "kind": KIND,
            "format": FORMAT,
            "languages": self.languages,
            "space": self.space.to_json(),
            "manifest": self.manifest,
        }
        with Lock(path):
            files.refuse_existing(path, overwrite)
            write_tensors(path, tensors, header)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        """Open a file, or a run's folder; its tensors are read when asked for, each checked against its SHA-256.

        Raises FileError for a file that is not there, damaged, or holds what cannot have been counted.

        Example:
            >>> lape.ActivationStats.load("run").languages
            ['en', 'fr', 'id', 'zh']
        """
        path = Path(path)
        file = TensorFile(path / STATS if path.is_dir() else path, KIND, HEADER, format=FORMAT)
        with file.reading():
            space, languages = NeuronSpace.from_json(file.header["space"]), file.header["languages"]
            check_tags(languages)
            unknown = sorted({name.partition("/")[0] for name in file.names()} - set(languages))
            if unknown:
                raise FileError(
                    f"It holds tensors of {', '.join(unknown)}, but its languages are {', '.join(languages)}."
                )
            by_language = {language: LanguageStats(FromFile(file, f"{language}/")) for language in languages}
            stats = cls(space, by_language, file.header["manifest"])
            for language, one in by_language.items():
                check(language, one, space, described(stats.manifest))
            if len({like(one.tensors, "tokens").numel() for one in by_language.values()}) > 1:
                raise FileError("Its languages have different numbers of folds.")
            partly = shards.partly(stats.manifest.get("corpus", {}))

        def laws(name: str, tensor: Tensor) -> str | None:
            language, _, kind = name.partition("/")
            wrong = broken(kind, tensor, by_language[language].tensors, space, empty=language in partly)
            return f"{language}: {wrong}" if wrong else None

        file.obey(laws)
        return stats

    def save_pretrained(
        self, folder: str | Path, *, repo_id: str | None = None, base_model: str | None = None, overwrite: bool = False
    ) -> Path:
        """Write a folder of exactly what `push_to_hub` would publish, and give its path: see `lape.ship.hub.write`.

        Example:
            >>> folder = stats.save_pretrained("published")
            >>> lape.ActivationStats.from_pretrained(folder).digest == stats.digest
            True
        """
        from lape.ship.hub import write  # upward: the contract of imports names this line

        return write(self, folder, repo_id=repo_id, base_model=base_model, overwrite=overwrite)

    def push_to_hub(
        self, repo_id: str, *, base_model: str | None = None, private: bool = False, overwrite: bool = False
    ) -> str:
        """Publish them on the Hugging Face Hub, with a card, and give the address: see `lape.ship.hub.push`.

        Example:
            >>> _ = stats.push_to_hub("me/stats")
            >>> lape.ActivationStats.from_pretrained("me/stats").digest == stats.digest
            True
        """
        from lape.ship.hub import push  # upward, as above

        return push(self, repo_id, base_model=base_model, private=private, overwrite=overwrite)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> ActivationStats:
        """Read what was published: from a folder, or by its name on the Hugging Face Hub, OWNER/NAME, which is fetched once: see `lape.ship.hub.fetch`.

        Raises FileError where there is neither, where it holds no activation statistics, and where the Hub cannot be reached.

        Example:
            >>> lape.ActivationStats.from_pretrained("run").languages
            ['en', 'fr', 'id', 'zh']
        """
        from lape.ship.hub import fetch_file  # upward, as above

        return cls.load(fetch_file(name, STATS, "activation statistics", revision=revision))


def others_mean(language: str, others: Sequence[Tensor]) -> Tensor:
    """(n,) float64: the mean of the other languages' means. Added one row after the other: torch's own sum rounds differently at different
    columns, and a neuron must have the same value whichever others are beside it.
    """
    if not others:
        raise OptionError(
            f"Only {language} was recorded, so there are no others to compare it with. Record two or more."
        )
    total = torch.zeros_like(others[0])
    for row in others:
        total += row
    return total / len(others)


def _whole(language: str, count: int) -> int:
    """A token count that was given, which may be numpy's. Raises OptionError for one that is not whole."""
    try:
        return index(count)
    except TypeError as error:
        raise OptionError(f"{language}: tokens is {count!r}. Expected a whole number from 1.") from error


def _is_routed(denominator: str) -> bool:
    """Whether a mean is over the tokens that reached a neuron, not over all. Raises OptionError for a denominator that there is not."""
    if denominator not in ("tokens", "routed"):
        raise OptionError(f"denominator is {denominator!r}. Expected tokens or routed.")
    return denominator == "routed"


def check(language: str, one: LanguageStats, space: NeuronSpace, known: Mapping[str, Quantity]) -> None:
    """Refuse a language's tensors that are not of the shapes and number formats that they are said to be. Raises FileError."""
    missing = [name for name in COUNTS if name not in one.tensors]
    if missing:
        raise FileError(f"{language} has no {', '.join(missing)}.")
    folds = like(one.tensors, "tokens").numel()
    lengths = {"folds": folds, "stretches": len(space.stretches), "neurons": len(space)}
    for name in one.tensors:
        held = like(one.tensors, name)
        if name not in known or not known[name].fits(held, lengths):
            said = (
                f"expected ({', '.join(known[name].axes)}), {known[name].dtype}"
                if name in known
                else "nothing says what it is"
            )
            raise FileError(f"{language} has {name} {tuple(held.shape)}, {held.dtype}; {said}.")


def merge(parts: Iterable[ActivationStats]) -> ActivationStats:
    """The sum of any number of statistics of one model, as by `ActivationStats.merge`: other languages, other text, or the shards of one.

    Raises MismatchError where they do not add up or a text's shards are not all there, OptionError where there are none.

    Example:
        >>> from lape.values.stats import merge
        >>> shards = [lape.record(model, tokenizer, {"en": "en.txt"}, row_tokens=64, batch_tokens=256, shard=f"{k}/2") for k in (1, 2)]
        >>> whole = lape.record(model, tokenizer, {"en": "en.txt"}, row_tokens=64, batch_tokens=256)
        >>> bool((merge(shards)["en"].fires == whole["en"].fires).all())
        True
    """
    result: ActivationStats | None = None
    for part in parts:
        result = part if result is None else result.merge(part)
    if result is None:
        raise OptionError("There is nothing to merge. Expected at least one file of statistics.")
    result.check_whole()
    return result
