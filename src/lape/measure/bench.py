"""Everything that a way of forcing a language needs while it runs: the model, its statistics, sets, vocabularies, questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lape.data.corpus import TextOptions, prepare
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.detect import DETECTORS
from lape.detect.identify import identify
from lape.edit.diffmean import shifted
from lape.edit.edit import Edit
from lape.edit.steer import steered, steering
from lape.errors import OptionError, TextError, certain
from lape.measure.generation import GenerationOptions, generate
from lape.measure.mask import VocabularyMask, endings, frequent, token_counts
from lape.measure.methods import Setting
from lape.measure.prompts import ask, cut, prompt_ids
from lape.measure.steering_controls import matched_norm, permuted, randomised, transplanted
from lape.model.body import device_of, text_config
from lape.model.identity import check_made_with
from lape.model.loss import Head, find_head
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

_MEASURED = 6
"""Prompts on which a control's strength is matched."""


class Bench:
    """Puts questions to a model under any `Setting`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        stats: ActivationStats,
        texts: Texts | None,
        generation: GenerationOptions,
        *,
        neurons: LanguageNeurons | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.stats, self.generation, self.seed = model, tokenizer, stats, generation, seed
        self.texts = {tag(language): source for language, source in (texts or {}).items()}
        self._given = neurons
        self._sets: dict[str, LanguageNeurons] = {}
        self._allowed: dict[str, Tensor] = {}
        check_made_with(model, tokenizer, statistics=stats)

    @cached_property
    def head(self) -> Head:
        """The model's LM head."""
        return find_head(self.model)

    def answers(
        self,
        setting: Setting,
        questions: Mapping[str, Sequence[str]],
        source: str,
        target: str,
        examples: Sequence[Sequence[tuple[str, str]]] = (),
    ) -> list[str]:
        """One answer to each question. `examples`: for each question, pairs that may be shown before it, as many as there are."""
        asked = target if setting.ceiling else source

        def prompt(number: int, question: str) -> str:
            shown = examples[number] if number < len(examples) else ()
            asking = replace(setting.asking, shots=min(setting.asking.shots, len(shown)))
            return ask(self.tokenizer, question, source=asked, target=target, asking=asking, examples=shown)

        prompts = [prompt(number, question) for number, question in enumerate(questions[asked])]
        with self.under(setting, source, target, prompts):
            found = generate(
                self.model, self.tokenizer, prompts, self.generation, processors=self._processors(setting, target)
            )
        return [cut(answer, target=target) for answer in found]

    def under(
        self, setting: Setting, source: str, target: str, prompts: Sequence[str] = ()
    ) -> AbstractContextManager[object]:
        """While inside, the model is as the setting wants it. `prompts`: where a control's strength is matched."""
        if setting.diffmean is not None:
            return shifted(self.model, self.stats, setting.diffmean, source=source, target=target)
        if setting.steer is not None:
            return steered(self.model, self.edits(setting, source, target, prompts), setting.steer)
        return nullcontext()

    def edits(self, setting: Setting, source: str, target: str, prompts: Sequence[str]) -> list[Edit]:
        """The edits of a setting of neurons, or of one of its controls. Raises OptionError where there are not enough neurons."""
        real, edits = self._drawn(setting, source, target)
        if setting.control != "random":
            return edits
        return matched_norm(self.model, edits, real, self._ids(prompts), certain(setting.steer).tokens)

    def missing(self, setting: Setting, pairs: Sequence[tuple[str, str]]) -> str | None:
        """Why a setting cannot be run on some pair, or None where it can."""
        if setting.steer is not None:
            for source, target in pairs:
                try:
                    self._drawn(setting, source, target)
                except (OptionError, TextError) as error:
                    return f"{source} → {target}: {error}"
        return None

    def _drawn(self, setting: Setting, source: str, target: str) -> tuple[list[Edit], list[Edit]]:
        """The edits that a control stands beside, and its own before their strength is matched; twice the same without one."""
        sets = self.sets(setting.sets)
        real = steering(sets, self.stats, certain(setting.steer), source=source, to=target)  # asked for neurons only
        generator = torch.Generator().manual_seed(self.seed)
        if setting.control == "permuted":
            return real, permuted(real, generator)
        if setting.control == "other":
            return real, transplanted(real, sets[self._third(source, target)], generator)
        return real, randomised(real, sets.union, generator) if setting.control == "random" else real

    def sets(self, spec: str) -> LanguageNeurons:
        """Language neurons by what a setting calls them."""
        if spec not in self._sets:
            self._sets[spec] = (self._given if spec == "lape" else None) or named_sets(self.stats, spec)
        return self._sets[spec]

    def has_residual(self, languages: Sequence[str]) -> bool:
        """Whether the statistics hold the residual stream."""
        return all("residual" in self.stats[language].tensors for language in languages)

    def without_text(self, languages: Sequence[str]) -> list[str]:
        """The languages that have no text for the vocabulary mask."""
        return [language for language in dict.fromkeys(map(tag, languages)) if language not in self.texts]

    def _third(self, source: str, target: str) -> str:
        """Another language: the one that follows the target in the list."""
        languages = [language for language in self.stats.languages if language != tag(source)]
        if len(languages) < 2:
            raise OptionError("The control with another language's neurons needs three languages in the statistics.")
        return languages[(languages.index(tag(target)) + 1) % len(languages)]

    def _ids(self, prompts: Sequence[str]) -> list[Tensor]:
        device = device_of(self.model)
        return [torch.tensor([prompt_ids(self.tokenizer, prompt)], device=device) for prompt in prompts[:_MEASURED]]

    def _processors(self, setting: Setting, target: str) -> list[Any]:
        if setting.coverage is None:
            return []
        allowed = frequent(self._counts(target), setting.coverage, endings(self.tokenizer))
        return [VocabularyMask(allowed, setting.penalty)]

    def _counts(self, target: str) -> Tensor:
        """How often each token occurs in the target's text."""
        target = tag(target)
        if target not in self._allowed:
            if target not in self.texts:
                raise TextError(f"The vocabulary mask needs text in {target}. Give some: texts={{'{target}': PATH}}.")
            corpus = prepare(target, self.texts[target], self.tokenizer, TextOptions())
            size = max(int(text_config(self.model).vocab_size), len(self.tokenizer))
            self._allowed[target] = token_counts(torch.as_tensor(corpus.tokens.astype("int64")), size)
        return self._allowed[target]


def named_sets(stats: ActivationStats, spec: str, folder: Path | None = None) -> LanguageNeurons:
    """Language neurons by name: `lape` (those of the run's folder, where it has some), `lape:N`, `difference:N` with N a language."""
    check_specs([spec])
    method, _, count = spec.partition(":")
    if spec == "lape" and folder is not None and (folder / "neurons.safetensors").is_file():
        return LanguageNeurons.load(folder)
    if not count:
        return identify(stats, method, reliability=False)
    return identify(stats, method, reliability=False, per_language=int(count))


def check_specs(specs: Sequence[str]) -> None:
    """Raises OptionError for what does not name sets of neurons."""
    for spec in specs:
        method, _, count = spec.partition(":")
        if method not in DETECTORS or (count and not count.isdecimal()):
            raise OptionError(
                f"{spec!r} does not name sets of neurons. Expected lape, or a number of neurons such as difference:100."
            )


def both_ways(setting: Setting) -> Setting:
    """The same acting on every position, as it would on text that is read: what an edit costs at most."""
    if setting.steer is not None:
        return replace(setting, steer=replace(setting.steer, tokens="both", first=None, fade=1.0))
    if setting.diffmean is not None:
        return replace(setting, diffmean=replace(setting.diffmean, tokens="both", first=None, fade=1.0))
    return setting
