"""`Study`: a model, the recorded text, the parallel text, and what its parts share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from lape.data.corpus import TextOptions
from lape.detect.identify import identify
from lape.errors import OptionError, TextError
from lape.experiments.frontier.run import matched_sets
from lape.experiments.perplexity.run import PerplexityOptions
from lape.measure.ablation import Ablations, refuse_recorded
from lape.progress import Progress, silent
from lape.study.options import StudyOptions
from lape.study.texts import spread
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

Tables = dict[str, pl.DataFrame]
"""What a part gives: tables by name."""
_METHODS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "probability": ("difference", {"of": "probability"}),
}
"""Ways of choosing that are another's with options."""
CONTROLS = ("random", "matched")
"""Ways of choosing that do next to nothing at any size: measured at the largest alone."""
FINER = ("lape", "difference")
"""Those compared more finely."""


def _named(method: str) -> tuple[str, dict[str, Any]]:
    """A way of choosing and its options: `difference:of=probability,against=largest`."""
    if method in _METHODS:
        return _METHODS[method]
    name, _, rest = method.partition(":")
    more: dict[str, Any] = {}
    for one in filter(None, rest.split(",")):
        key, equals, value = one.partition("=")
        if not equals:
            raise OptionError(
                f"{method!r} is no way of choosing. Expected a name, or NAME:OPTION=VALUE,… such as difference:against=largest."
            )
        more[key] = float(value) if value.replace(".", "", 1).isdigit() else value
    return name, more


@dataclass
class Study:
    """Everything a part may ask for; what takes time is made when first asked for."""

    model: Any
    tokenizer: Any
    stats: ActivationStats
    lines: Mapping[str, list[str]]
    """Language -> the parallel text's lines."""
    options: StudyOptions
    folder: Path
    """Where what was measured is kept until the study is whole."""
    texts: Mapping[str, Any] = field(default_factory=dict)
    """Language -> the text that was recorded, for parts that read it again."""
    answering: Mapping[str, str] = field(default_factory=dict)
    """Language -> a file of questions about passages, in SQuAD's format."""
    forcing: Path | None = None
    """What `lape force` measured: its folder, or its forcing.json."""
    progress: Progress = silent
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Part -> what is to be said of how it came out."""

    def __post_init__(self) -> None:
        unknown = [language for language in self.stats.languages if language not in self.lines]
        if unknown:
            raise TextError(
                f"{', '.join(unknown)}: recorded, but there is no parallel text. Type --parallel {unknown[0]}=PATH."
            )

    @property
    def languages(self) -> list[str]:
        """The languages studied: those recorded."""
        return self.stats.languages

    @property
    def over(self) -> list[str]:
        """The languages over which averages are taken: all but the main one."""
        rest = [language for language in self.languages if language != self.options.main]
        if len(rest) < 2:
            raise OptionError(
                f"Only {', '.join(rest) or 'no language'} is left beside the main one. Record three or more."
            )
        return rest

    @cached_property
    def evaluation(self) -> tuple[list[int], dict[str, Any]]:
        """The numbers of the evaluated lines, and their text by language."""
        chosen = {language: self.lines[language] for language in self.languages}
        return spread(chosen, self.options.tokens, self.tokenizer)

    @property
    def necessity_language(self) -> str:
        """The language on which single neurons are switched off."""
        wanted = self.options.necessity or self.over[0]
        if wanted not in self.languages:
            raise OptionError(
                f"necessity is {wanted!r}. Expected a language that was recorded: {', '.join(self.languages)}."
            )
        return wanted

    def evaluated_lines(self, language: str) -> list[str]:
        """The evaluated lines of a language."""
        return [self.lines[language][k] for k in self.evaluation[0]]

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Way of choosing -> why these statistics do not allow it; one that was asked for by name is an error instead."""
        reasons = {}
        for method in self.options.compared:
            try:
                if method != "matched":
                    self.chosen(method, 1)
            except OptionError as error:
                if self.options.methods:
                    raise
                reasons[method] = str(error)
        return reasons

    @property
    def compared(self) -> list[str]:
        """The ways of choosing on the frontier."""
        return [method for method in self.options.compared if method not in self.left_out]

    @cached_property
    def neurons(self) -> LanguageNeurons:
        """LAPE's sets under the published rule."""
        return identify(self.stats, reliability=False)

    @cached_property
    def work(self) -> Ablations:
        """The evaluated text under the model, unedited and with sets off."""
        options = TextOptions(batch_tokens=self.options.batch_tokens)
        texts, folder = self.evaluation[1], self.cells("evaluation")
        work = Ablations(self.model, self.tokenizer, texts, options, folder=folder, progress=self.progress)
        refuse_recorded(work.corpora, self.neurons)
        work.base(self.progress)
        return work

    def cells(self, name: str) -> Path:
        """A folder where measured cells are kept until the study is whole."""
        folder = self.folder / "cells" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def perplexity_options(self) -> PerplexityOptions:
        """As the perplexity matrix takes them."""
        options = self.options
        return PerplexityOptions(draws=options.draws, resamples=options.resamples, seed=options.seed)

    def chosen(self, method: str, size: int) -> LanguageNeurons:
        """The sets of a way of choosing with `size` neurons of each language."""
        if method == "matched":
            return matched_sets(self.work, self.chosen("lape", size), self.options.seed)
        name, more = _named(method)
        if name == "random":
            more = {"seed": self.options.seed, **more}
        return identify(self.stats, name, reliability=False, per_language=size, **more)

    def sizes(self, method: str) -> Sequence[int]:
        """The sizes at which a way of choosing is measured."""
        if method in CONTROLS or self.options.quick:
            return [max(self.options.sizes)]
        return sorted({*self.options.sizes, *(self.options.finer if method in FINER else ())})

    def note(self, part: str, *notes: str) -> None:
        """Add to what is said of a part."""
        self.notes.setdefault(part, []).extend(notes)
