"""Script or language: do the neurons follow when the same sentences are written differently, and do they still matter?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import polars as pl
from torch import nn

from lape.data.corpus import Corpus, prepare
from lape.data.rewriting import Writing
from lape.data.texts import Documents, Texts
from lape.detect.halves import halves
from lape.detect.lape import LapeOptions, lape
from lape.detect.stability import SMALLEST, chance_jaccard
from lape.edit.edit import Off, edited
from lape.errors import MismatchError, TextError
from lape.experiments.scripts.writings import ScriptOptions, Written, first_lines, native, noisy, rewritten
from lape.measure.ablation import KNOWN
from lape.measure.bootstrap import BLOCK, Floats, Resamples, by_unit
from lape.measure.intervals import ENDS, resampled
from lape.model.body import check_fits
from lape.model.loss import find_head, line_loss
from lape.options import Tokens, given
from lape.progress import Progress, each, shown
from lape.recording.engine import RecordOptions
from lape.recording.record import record
from lape.recording.run import checked_texts
from lape.values.neurons import NeuronSet, jaccard
from lape.values.stats import COUNTS, ActivationStats, LanguageStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DAMAGES = ("own_on_native", "own_on_variant", "variant_on_native", "variant_on_variant")
SCRIPTS = {
    **dict.fromkeys(("language", "variant", "kind", "by"), pl.String),
    "rate": pl.Float64,
    "reached": pl.Boolean,
    **dict.fromkeys(("neurons_native", "neurons_variant"), pl.Int64),
    **dict.fromkeys(("jaccard", "ceiling", "chance", "nats_native", "nats_variant"), pl.Float64),
    "units": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in DAMAGES for end in ENDS},
    **resampled("kept"),
}


def scripts(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    stats: ActivationStats,
    texts: Texts,
    evaluation: Texts,
    *,
    kinds: tuple[Writing, ...] = get_args(Writing),
    tokens: Tokens = 20000,
    evaluation_tokens: Tokens = 6000,
    apart: bool = False,
    steps: int = 8,
    resamples: int = 2000,
    seed: int = 0,
    rule: LapeOptions | None = None,
    progress: Progress = shown,
) -> pl.DataFrame:
    """What becomes of each language's neurons when its text is written differently (ours; asked by LAPE's critics).

    `texts`: language tag -> text that is recorded in every writing, the same lines in each; `evaluation`: the same languages ->
    other text, on which the damage is measured; `stats`: the statistics of all languages, made by this model, whose rules of
    counting are kept; `rule`: how LAPE chooses. In `stats` the language is replaced by those lines as they are (its native
    set) and in each writing (the variant's set); the other languages stay.

    One row per language and writing: `language`, `variant` (its tag), `kind`, `by` (which library did it), `rate` (share of
    letters replaced) and `reached` (whether that makes the text as costly as romanised text) for noise;
    `neurons_native`, `neurons_variant`; `jaccard` of both sets; `ceiling`, the median Jaccard of the native sets from two
    halves of the language's folds, and `chance`, of random sets with as many neurons a layer (all three null for sets under 20
    neurons); `nats_native`, `nats_variant` (nats per sentence, nothing off); `units` (blocks of 8 lines, or with `apart` lines); and the
    change in nats per sentence with its 95 % interval (`_low`, `_high`; null under 20 units): `own_on_native`, `own_on_variant` (the
    native set off), `variant_on_native`, `variant_on_variant` (the variant's set off), on text of either writing; and `kept`,
    own_on_variant over own_on_native, paired over units, with `kept_quantiles`. A sentence is a line.

    The ceiling is of halves of the text and of different sentences, so it is lower than two writings of the same could reach.
    A writing that leaves half of the lines as they were is left out, and noise with it where it is the romanised one.
    Raises TextError for a language that is not in all three, MismatchError for statistics of another model or text that was
    recorded, OptionError where a library is missing.

    Example:
        >>> from lape.experiments.scripts.run import scripts
        >>> recorded, other = {"fr": "fr.txt"}, {"fr": "fr2.txt"}
        >>> table = scripts(model, tokenizer, stats, recorded, other, kinds=("shuffled",), tokens=500, evaluation_tokens=200)
        >>> table["kind"].to_list()
        ['shuffled']
    """
    options = given(ScriptOptions, locals())
    work = _Work(model, tokenizer, stats, options, rule or LapeOptions())
    natives = {language: _native(work, language, *both) for language, both in _sources(texts, evaluation).items()}
    others = {language: rewritten(own, language, options) for language, own in natives.items()}
    rows = []
    for language, own in each(natives.items(), "measuring rewritten text", progress):
        rows += work.language(language, own, others[language])
    return pl.DataFrame(rows, schema=SCRIPTS)


def _sources(texts: Texts, evaluation: Texts) -> dict[str, tuple[Any, Any]]:
    recorded, other = checked_texts(texts), checked_texts(evaluation)
    if set(recorded) != set(other):
        raise TextError(
            f"The texts to record are in {', '.join(recorded)}, those to evaluate on in {', '.join(other)}. Give both in the same languages."
        )
    return {language: (source, other[language]) for language, source in recorded.items()}


def _native(work: _Work, language: str, recorded: Any, evaluated: Any) -> Written:
    work.stats.canonical(language)
    lines = [
        first_lines(source, tokens, work.tokenizer, work.counting)
        for source, tokens in ((recorded, work.options.tokens), (evaluated, work.options.evaluation_tokens))
    ]
    for found, what in zip(lines, ("to record", "to evaluate on"), strict=True):
        if not found:
            raise TextError(f"The text {what} for {language} has no line. Give it some text, or leave it out.")
    work.refuse_recorded(language, lines[1])
    return native(language, *lines)


def counting_of(stats: ActivationStats) -> RecordOptions:
    """The options under which statistics were recorded, without their limit of tokens: further text is counted by the same rules."""
    saved = stats.manifest.get("options", {})
    known = {field.name for field in dataclasses.fields(RecordOptions)} - {"tokens"}
    return RecordOptions(**{name: value for name, value in saved.items() if name in known})


class _Work:
    """Records, chooses and measures, one language at a time."""

    def __init__(
        self, model: Any, tokenizer: Any, stats: ActivationStats, options: ScriptOptions, rule: LapeOptions
    ) -> None:
        self.model, self.tokenizer, self.stats, self.options, self.rule = model, tokenizer, stats, options, rule
        self.counting, self.head = counting_of(stats), find_head(model)
        self.whole = {language: _summed(stats[language]) for language in stats.languages}

    def language(self, language: str, own: Written, others: list[Written]) -> list[dict[str, Any]]:
        """One row for each other writing of a language."""
        others = self._with_noise(language, own, others)
        if not others:
            return []
        recorded = self._record([own, *others])
        sets = {one.tag: self._set(language, _summed(recorded[one.tag])) for one in (own, *others)}
        ceiling = self._ceiling(language, recorded[own.tag])
        corpus = self._corpus(own.tag, own.evaluated)
        base, off = self._losses(corpus), self._losses(corpus, sets[own.tag])
        rows = []
        for one in others:
            row: dict[str, Any] = {"language": language, "variant": one.tag, "kind": one.kind, "by": one.by}
            row |= {"rate": one.rate, "reached": one.reached}
            row |= _overlap(sets[own.tag], sets[one.tag], ceiling)
            rows.append(row | self._damage(one, corpus, base, off, sets[own.tag], sets[one.tag]))
        return rows

    def _with_noise(self, language: str, own: Written, others: list[Written]) -> list[Written]:
        romanised = next((one for one in others if one.kind == "romanised"), None)
        kept = [one for one in others if one.kind in self.options.kinds]
        if romanised is None or "noised" not in self.options.kinds:
            return kept
        return [*kept, noisy(own, romanised, language, self._nats, self.options)]

    def _nats(self, lines: Sequence[str]) -> float:
        return float(self._losses(self._corpus("und", lines)).mean())

    def _corpus(self, language: str, lines: Sequence[str]) -> Corpus:
        """Lines read as one document, or each by itself."""
        texts = list(lines) if self.options.apart else ["\n".join(lines)]
        corpus = prepare(language, Documents(texts), self.tokenizer, self.counting, lines=True)
        check_fits(self.model, self.counting.row_tokens, int(corpus.tokens.max()))
        return corpus

    def _losses(self, corpus: Corpus, off: NeuronSet | None = None) -> Floats:
        """(lines,) nats, each line's tokens summed, with neurons off."""
        with edited(self.model, [] if off is None else Off(off)):
            return line_loss(self.model, self.head, corpus, self.counting).nll

    def refuse_recorded(self, language: str, lines: Sequence[str]) -> None:
        """Refuse to measure damage on text that the neurons were found on."""
        corpus = self._corpus(language, lines)
        known = corpus.known(self.stats[language].fingerprints)
        if known > KNOWN:
            raise MismatchError(
                f"{language}: {known:.0%} of the text to evaluate on or more was recorded in the statistics. Evaluate on other text."
            )

    def _record(self, writings: Sequence[Written]) -> ActivationStats:
        texts = {one.tag: self._documents(one.recorded) for one in writings}
        found = record(self.model, self.tokenizer, texts, **vars(self.counting))
        self.stats.merge(found)  # refuses another model, tokenizer or rule of counting
        return found

    def _documents(self, lines: list[str]) -> Documents:
        return Documents(lines if self.counting.document == "line" else ["\n".join(lines)])

    def _set(self, language: str, one: LanguageStats) -> NeuronSet:
        """A language's neurons where it is `one` and the others are what they were."""
        return lape(ActivationStats(self.stats.space, {**self.whole, language: one}, {}), **vars(self.rule))[language]

    def _ceiling(self, language: str, own: LanguageStats) -> float | None:
        """Median Jaccard of the sets from two halves of a language's folds; None without folds to halve."""
        values = []
        for a, b in halves(len(own.tokens)):
            if all(int(own.tokens[list(half)].sum()) for half in (a, b)):
                values.append(jaccard(self._set(language, _summed(own, a)), self._set(language, _summed(own, b))))
        return float(np.median(values)) if values else None

    def _damage(
        self, one: Written, corpus: Corpus, base: Floats, off: Floats, own_set: NeuronSet, variant_set: NeuronSet
    ) -> dict[str, Any]:
        varied = self._corpus(one.tag, one.evaluated)
        before = self._losses(varied)
        pairs = {
            "own_on_native": (base, off),
            "own_on_variant": (before, self._losses(varied, own_set)),
            "variant_on_native": (base, self._losses(corpus, variant_set)),
            "variant_on_variant": (before, self._losses(varied, variant_set)),
        }
        units = len(self._by_unit(base)[0])
        row: dict[str, Any] = {"nats_native": base.mean(), "nats_variant": before.mean(), "units": units}
        for name, (without, after) in pairs.items():
            row |= self._ratio(name, *self._by_unit(after - without))
        native, variant = (self._by_unit(after - without)[0] for without, after in list(pairs.values())[:2])
        if len(native) != len(variant) or native.sum() <= 0:
            return row
        return row | self._ratio("kept", variant, native)

    def _by_unit(self, values: Floats) -> tuple[Floats, Floats]:
        """(units,) the sum over each unit's lines, and their number."""
        unit = np.arange(len(values)) // (1 if self.options.apart else BLOCK)
        count = int(unit[-1]) + 1
        return by_unit(unit, values, count), by_unit(unit, np.ones(len(unit)), count)

    def _ratio(self, name: str, values: Floats, over: Floats) -> dict[str, Any]:
        drawn = Resamples(len(values), self.options.resamples, self.options.seed)
        return drawn.named(name, drawn.ratio(values, over), quantiles=name == "kept")


def _summed(one: LanguageStats, folds: Sequence[int] | None = None) -> LanguageStats:
    """The counts of some folds, or of all, as one fold in memory."""
    chosen = slice(None) if folds is None else list(folds)
    return LanguageStats({name: one.tensors[name][chosen].sum(0, keepdim=True) for name in COUNTS})


def _overlap(own: NeuronSet, variant: NeuronSet, ceiling: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {"neurons_native": len(own), "neurons_variant": len(variant)}
    if min(len(own), len(variant)) < SMALLEST:
        return row
    return row | {"jaccard": jaccard(own, variant), "ceiling": ceiling, "chance": chance_jaccard(own, variant)}
