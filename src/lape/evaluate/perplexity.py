"""What switching off each language's neurons does to each language's loss, with controls and intervals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lape.corpus import Corpus, prepare
from lape.edit import Off, edited
from lape.errors import MismatchError, OptionError, TextError
from lape.evaluate.bootstrap import Bootstrap, Floats, units
from lape.evaluate.controls import matched_like
from lape.evaluate.nll import Head, Loss, find_head, line_loss
from lape.neurons import LanguageNeurons, NeuronSet
from lape.options import PerplexityOptions, given
from lape.progress import Progress, silent
from lape.recorder import Recorder
from lape.recording import checked_texts
from lape.sites import check_fits, down_norms, find
from lape.texts import Texts

SUMMARY = {
    **dict.fromkeys(("off", "language"), pl.String),
    **dict.fromkeys(("neurons", "tokens", "characters", "sentences", "units"), pl.Int64),
    **dict.fromkeys(
        ("nll_base", "nll_off", "delta_token", "low", "high", "delta_character", "delta_sentence"), pl.Float64
    ),
    **dict.fromkeys(("perplexity_base", "perplexity_off", "percent"), pl.Float64),
    **dict.fromkeys(("random_mean", "random_max", "matched_mean", "matched_max"), pl.Float64),
}
KNOWN = 0.01
"""Text of which more lines than this share were recorded is refused; a few short lines may well come twice."""
LINES = {
    "off": pl.String,
    "kind": pl.String,
    "draw": pl.Int64,
    "language": pl.String,
    "document": pl.Int64,
    "line": pl.Int64,
    "unit": pl.Int64,
    "tokens": pl.Int64,
    "characters": pl.Int64,
    "nll": pl.Float64,
}


@dataclass(frozen=True)
class _Condition:
    """One set of neurons switched off: a language's own (`own`), or a control of it (`random`, `matched`)."""

    off: str
    kind: str
    draw: int
    neurons: NeuronSet


def perplexity(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    neurons: LanguageNeurons,
    options: PerplexityOptions | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> pl.DataFrame:
    """Off-language × evaluated-language table of the change of loss; see `summary` for its columns.

    `texts`: language tag -> source, not the text that the neurons were found on (refused, unless `allow_recorded`).
    """
    options = given(PerplexityOptions, options, changes)
    return summary(line_losses(model, tokenizer, texts, neurons, options, progress=progress), neurons, options)


def line_losses(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    neurons: LanguageNeurons,
    options: PerplexityOptions,
    *,
    progress: Progress = silent,
) -> pl.DataFrame:
    """The loss of every line in every condition, the ground of all tables.

    Columns: `off` (language switched off, "" for the base), `kind` (base, own, random, matched), `draw`, `language`
    (evaluated), `document`, `line`, `unit` (of resampling), `tokens` (scored), `characters`, `nll` (nats, summed over the line).
    """
    sources = checked_texts(texts)
    found = find(model)
    if neurons.space != found.space:
        raise MismatchError(f"The neurons belong to a model with {neurons.space}, but this one has {found.space}.")
    corpora = {
        language: prepare(language, source, tokenizer, options, lines=True, progress=progress)
        for language, source in sources.items()
    }
    for language, corpus in corpora.items():
        if corpus.lines is None or not corpus.lines.characters.any() or len(corpus.tokens) < 2:
            raise TextError(
                f"The text for {language} holds nothing to measure: {len(corpus.tokens)} tokens. Give it more text."
            )
        check_fits(model, options.row_tokens, int(corpus.tokens.max()))
    if not options.allow_recorded:
        _refuse_recorded(corpora, neurons)
    work = _Work(model, find_head(model), corpora, options, progress)
    frames = work.base()
    conditions = _conditions(neurons, corpora, work.energy, options)
    runs = [(condition, language) for condition in conditions for language in _evaluated(condition, corpora)]
    for done, (condition, language) in enumerate(runs):
        progress("switching neurons off", done, len(runs))
        frames.append(work.condition(condition, language))
    progress("switching neurons off", len(runs), len(runs))
    return pl.concat(frames)


def _refuse_recorded(corpora: dict[str, Corpus], neurons: LanguageNeurons) -> None:
    if neurons.fingerprints is None:
        return
    for language, corpus in corpora.items():
        known = float(torch.isin(corpus.fingerprints, neurons.fingerprints).double().mean())
        if known > KNOWN:
            raise MismatchError(
                f"{language}: {known:.0%} of the lines of this text were recorded when the neurons were found. "
                "Evaluate on other text, or add --allow-recorded (allow_recorded=True) if you mean it."
            )


def _conditions(
    neurons: LanguageNeurons, corpora: dict[str, Corpus], energy: dict[str, Tensor], options: PerplexityOptions
) -> list[_Condition]:
    """Every language's own set, and for the evaluated ones the draws of both controls."""
    result = [_Condition(language, "own", 0, found) for language, found in neurons.items()]
    excluded = neurons.union
    for k, (language, found) in enumerate(neurons.items()):
        if language not in corpora or not len(found):
            continue
        for draw in range(options.draws):
            generator = torch.Generator().manual_seed(options.seed * 1_000_003 + k * 1009 + draw)
            for kind, by in (("random", None), ("matched", energy[language])):
                with suppress(OptionError):  # a set so large that too few others are left has no control
                    result.append(_Condition(language, kind, draw, matched_like(found, excluded, by, generator)))
    return result


def _evaluated(condition: _Condition, corpora: dict[str, Corpus]) -> list[str]:
    """A language's own set is measured on every language, a control on its own language alone."""
    return list(corpora) if condition.kind == "own" else [condition.off]


class _Work:
    """Runs conditions over corpora and keeps the base."""

    def __init__(
        self, model: Any, head: Head, corpora: dict[str, Corpus], options: PerplexityOptions, progress: Progress
    ) -> None:
        self.model, self.head, self.corpora, self.options, self.progress = model, head, corpora, options, progress
        self.energy: dict[str, Tensor] = {}
        self._base: dict[str, Loss] = {}

    def base(self) -> list[pl.DataFrame]:
        """The unedited model; also measures each neuron's energy on this very text, for the matched control."""
        found = find(self.model)
        norms = torch.cat([down_norms(self.model, site) for site in found.sites])
        frames = []
        for done, (language, corpus) in enumerate(self.corpora.items()):
            self.progress("measuring the unedited model", done, len(self.corpora))
            recorder = Recorder(self.model, found)
            with recorder.attached():
                loss = line_loss(self.model, self.head, corpus, self.options, lambda one, r=recorder: r.count(one.fold))  # type: ignore[misc]
            self.energy[language] = recorder.state()["square"] / max(len(corpus.tokens), 1) * norms
            self._base[language] = loss
            frames.append(_frame(_Condition("", "base", 0, NeuronSet(found.space, torch.empty(0))), corpus, loss))
        self.progress("measuring the unedited model", len(self.corpora), len(self.corpora))
        return frames

    def condition(self, condition: _Condition, language: str) -> pl.DataFrame:
        """One condition on one language."""
        corpus = self.corpora[language]
        if not len(condition.neurons):
            return _frame(condition, corpus, self._base[language])
        with edited(self.model, Off(condition.neurons)):
            return _frame(condition, corpus, line_loss(self.model, self.head, corpus, self.options))


def _frame(condition: _Condition, corpus: Corpus, loss: Loss) -> pl.DataFrame:
    lines = corpus.lines
    assert lines is not None  # prepared with lines=True
    count = len(lines.document)
    columns = {
        "off": [condition.off] * count,
        "kind": [condition.kind] * count,
        "draw": [condition.draw] * count,
        "language": [corpus.language] * count,
        "document": lines.document,
        "line": np.arange(count),
        "unit": units(lines.document),
        "tokens": loss.tokens,
        "characters": lines.characters,
        "nll": loss.nll,
    }
    return pl.DataFrame(columns, schema=LINES).filter(pl.col("tokens") > 0)


def summary(lines: pl.DataFrame, neurons: LanguageNeurons, options: PerplexityOptions) -> pl.DataFrame:
    """One row per language switched off and language evaluated. Losses are negative log-likelihoods in nats.

    `off`, `language`, `neurons` (switched off); `tokens`, `characters`, `sentences` (lines), `units` (of resampling);
    `nll_base`, `nll_off` (per token); `delta_token` with its 95 % interval `low`, `high` (null under 20 units);
    `delta_character`, `delta_sentence`; `perplexity_base`, `perplexity_off`, `percent` (change of perplexity, for convenience);
    `random_mean`, `random_max`, `matched_mean`, `matched_max`: `delta_token` of the control draws, null where none was drawn.
    """
    bootstrap = Bootstrap(int(lines["unit"].max()) + 1, options.resamples, options.seed)  # type: ignore[arg-type]
    parts = {
        key: frame.sort("line")
        for key, frame in lines.partition_by("off", "kind", "draw", "language", as_dict=True).items()
    }
    evaluated = list(dict.fromkeys(lines["language"]))
    rows = []
    for off, found in neurons.items():
        for language in evaluated:
            base, after = parts["", "base", 0, language], parts[off, "own", 0, language]
            row = {"off": off, "language": language, "neurons": len(found)} | _change(base, after, bootstrap)
            for kind in ("random", "matched"):
                draws = [
                    _delta(base, parts[key]) for key in parts if key[0] == off and key[1] == kind and key[3] == language
                ]
                row |= {
                    f"{kind}_mean": float(np.mean(draws)) if draws else None,
                    f"{kind}_max": max(draws, default=None),
                }
            rows.append(row)
    return pl.DataFrame(rows, schema=SUMMARY)


def _delta(base: pl.DataFrame, after: pl.DataFrame) -> float:
    return (float(after["nll"].sum()) - float(base["nll"].sum())) / int(base["tokens"].sum())


def _change(base: pl.DataFrame, after: pl.DataFrame, bootstrap: Bootstrap) -> dict[str, Any]:
    tokens, characters = int(base["tokens"].sum()), int(base["characters"].sum())
    before_nats, after_nats = float(base["nll"].sum()), float(after["nll"].sum())
    difference = after["nll"].to_numpy() - base["nll"].to_numpy()
    unit = base["unit"].to_numpy()
    sizes: Floats = np.bincount(unit, weights=base["tokens"].to_numpy()).astype(np.float64)
    interval = bootstrap.interval(np.bincount(unit, weights=difference).astype(np.float64), sizes)
    low, high = interval or (None, None)
    total = after_nats - before_nats
    return {
        "tokens": tokens,
        "characters": characters,
        "sentences": len(base),
        "units": len(np.unique(unit)),
        "nll_base": before_nats / tokens,
        "nll_off": after_nats / tokens,
        "delta_token": total / tokens,
        "low": low,
        "high": high,
        "delta_character": total / characters,
        "delta_sentence": total / len(base),
        "perplexity_base": float(np.exp(before_nats / tokens)),
        "perplexity_off": float(np.exp(min(after_nats / tokens, 700.0))),
        "percent": float(100 * np.expm1(min(total / tokens, 700.0))),
    }
