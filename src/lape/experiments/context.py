"""What every experiment may ask for: a model, recorded statistics, parallel text, and losses that are measured once and shared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from lape.data.corpus import TextOptions
from lape.data.parallel import spread, warn_of_few
from lape.data.texts import Documents
from lape.detect.identify import identify
from lape.errors import OptionError, TextError
from lape.measure.ablation import Ablations, refuse_recorded
from lape.options import Options, Positive, Tokens
from lape.progress import Progress, shown
from lape.store.files import CELLS
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

Tables: TypeAlias = Mapping[str, pl.DataFrame]
"""What an experiment gives: tables by name."""


@dataclass(frozen=True)
class SharedOptions(Options):
    """What all experiments of a run share."""

    tokens: Tokens = 2000
    """Evaluation tokens of each language on average: lines of the parallel text, evenly spread over it, the same in all languages. 2,000 are about
    60 sentences.
    """
    main: str | None = "en"
    """A language of which nothing specific is expected; it is measured, but left out of averages over languages."""
    resamples: Positive = 2000
    """Bootstrap resamples behind the 95 % intervals."""
    seed: int = 0
    """Seed of every draw."""
    quick: bool = False
    """Only the perplexity matrix, LAPE beside lap, lave, random and matched neurons, and what needs no model."""
    batch_tokens: int = 2048
    """Tokens that run through the model at once."""


@dataclass
class Context:
    """Everything an experiment may ask for; what takes time is made when first asked for.

    Raises TextError for a recorded language without parallel text where there is some, MismatchError for statistics of some shards only.

    Example:
        >>> from pathlib import Path
        >>> from lape.experiments.context import Context, SharedOptions
        >>> lines = {language: list(texts[language].texts) for language in texts}
        >>> context = Context(model, tokenizer, stats, lines, SharedOptions(tokens=400), Path("kept"))
        >>> context.languages, context.over
        (['en', 'fr', 'id', 'zh'], ['fr', 'id', 'zh'])
        >>> numbers, evaluated = context.evaluation
        >>> context.evaluated_lines("fr")[0] == lines["fr"][numbers[0]]
        True
        >>> others, other_text = context.spread(tokens=200, but=set(numbers))  # further sentences
        >>> set(others) & set(numbers), len(other_text["fr"].texts) == len(others)
        (set(), True)

        What an experiment does with it, here the loss with a language's own neurons off:

        >>> after = context.work.off(context.neurons["fr"], "fr")
        >>> len(after.nll) == len(numbers)
        True
        >>> context.progress("measuring", 1, 1)
        >>> context.note("mine", "only French was switched off")
        >>> context.cells("mine").is_dir()
        True
        >>> context.made_from["method"]  # and by content: the sets and the statistics
        'lape'
    """

    model: Any
    """None where no experiment that needs one is run."""
    tokenizer: Any
    """The model's own; None where there is no model."""
    stats: ActivationStats
    lines: Mapping[str, list[str]]
    """Language -> the parallel text's lines; empty where none was given."""
    options: SharedOptions
    """What all experiments of the run share."""
    folder: Path
    """Where what was measured is kept until the run is whole."""
    texts: Mapping[str, Any] = field(default_factory=dict)
    """Language -> the text that was recorded."""
    chosen: LanguageNeurons | None = None
    """The sets that are studied. Default: LAPE's under the published rule."""
    progress: Progress = shown
    """Told of what takes long."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Experiment -> what is to be said of how it came out."""
    left_out: dict[str, str] = field(default_factory=dict)
    """What an experiment left out, such as a selection method -> why."""
    documents: Sequence[int] | None = None
    """The document that each line of the parallel text is of, whose lines are resampled together; None where that is not known."""

    def __post_init__(self) -> None:
        self.stats.check_whole()
        unknown = [language for language in self.stats.languages if self.lines and language not in self.lines]
        if unknown:
            raise TextError(
                f"No parallel text was given for {', '.join(unknown)}, which the statistics hold. Give it: lines={{'{unknown[0]}': PATH}}."
            )

    @property
    def languages(self) -> list[str]:
        """The languages studied: those recorded."""
        return self.stats.languages

    @property
    def made_from(self) -> dict[str, Any]:
        """What results say they were made from: the statistics, and the sets where something has asked for them."""
        used: LanguageNeurons | None = vars(self).get("neurons")
        return {**(used.made_from if used is not None else {}), **self.stats.made_from}

    @property
    def over(self) -> list[str]:
        """The languages over which averages are taken: all but the main one. Raises OptionError where fewer than two are left."""
        rest = [language for language in self.languages if language != self.options.main]
        if len(rest) < 2:
            raise OptionError(
                f"Only {', '.join(rest) or 'no language'} is left beside the main language. Record three or more."
            )
        return rest

    @cached_property
    def evaluation(self) -> tuple[list[int], dict[str, Documents]]:
        """The numbers of the evaluated lines, from 0, and their text by language. Raises TextError where there is no parallel text."""
        if not self.lines:
            raise TextError(
                "There is no parallel text to evaluate on. Give it: lines={'fr': PATH}, and so for each language."
            )
        numbers, texts = self.spread(self.options.tokens)
        warn_of_few(texts, self.options.tokens, self.tokenizer)
        return numbers, texts

    def spread(
        self, tokens: int, languages: Sequence[str] | None = None, *, but: Collection[int] = ()
    ) -> tuple[list[int], dict[str, Documents]]:
        """Lines of the parallel text as `lape.data.parallel.spread` takes them: their numbers, and their text by language, those recorded by default.

        `but`: the numbers of lines that are not to be taken.
        """
        left = [k for k in range(len(next(iter(self.lines.values())))) if k not in but]
        lines = {language: [self.lines[language][k] for k in left] for language in languages or self.languages}
        within = None if self.documents is None else [self.documents[k] for k in left]
        numbers, texts = spread(lines, tokens, self.tokenizer, within)
        return [left[k] for k in numbers], texts

    def evaluated_lines(self, language: str) -> list[str]:
        """The evaluated lines of a language, in order. Raises as `evaluation` does."""
        return [self.lines[language][k] for k in self.evaluation[0]]

    @cached_property
    def neurons(self) -> LanguageNeurons:
        """The sets that are studied."""
        return identify(self.stats, reliability=False) if self.chosen is None else self.chosen

    @cached_property
    def work(self) -> Ablations:
        """The evaluated text under the model, unedited (measured already) and with sets off. Raises MismatchError for text that was recorded."""
        options = TextOptions(batch_tokens=self.options.batch_tokens, bos=self.stats.bos)
        texts, folder = self.evaluation[1], self.cells("evaluation")
        work = Ablations(self.model, self.tokenizer, texts, options, folder=folder, progress=self.progress)
        refuse_recorded(work.corpora, self.neurons)
        work.base(self.progress)
        return work

    def cells(self, name: str) -> Path:
        """A folder where measured cells are kept until the run is whole; it is made."""
        folder = self.folder / CELLS / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def note(self, experiment: str, *notes: str) -> None:
        """Add to what is said of an experiment; nothing, where nothing is said."""
        if notes:
            self.notes.setdefault(experiment, []).extend(notes)
