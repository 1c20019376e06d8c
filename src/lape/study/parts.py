"""The parts of a study: each is one experiment, a function from a `Study` to tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from lape.analyse.amount import amount, domain, dropped
from lape.analyse.controlled import controlled
from lape.analyse.frontier import MEAN, Effects, advantages, frontier, growth, matrix
from lape.analyse.layers import layers
from lape.analyse.overlap import overlap_chance, overlap_tests
from lape.analyse.reliability import reliability, split_halves
from lape.detect import identify, method_named
from lape.evaluate.effects import effects
from lape.evaluate.perplexity import losses, summary
from lape.evaluate.similarity import similarity
from lape.neurons import LanguageNeurons
from lape.recording import record
from lape.study.study import Study, Tables
from lape.texts import Documents


@dataclass(frozen=True)
class Cost:
    """What a part is going to run."""

    passes: int = 0
    """Sets of neurons switched off × languages evaluated."""
    loss_tokens: int = 0
    """Tokens run through the body and the LM head."""
    body_tokens: int = 0
    """Tokens run through the body alone."""
    new_tokens: int = 0
    """Tokens generated one by one, over all prompts of a batch together."""


def _free(_study: Study) -> Cost:
    return Cost()


@dataclass(frozen=True)
class Part:
    """One experiment."""

    name: str
    about: str
    run: Callable[[Study], Tables]
    cost: Callable[[Study], Cost] = _free
    quick: bool = False
    """Whether a quick study runs it."""
    missing: Callable[[Study], str | None] = lambda _study: None
    """Why it cannot be run, or None."""


def _rows(study: Study, sets: int) -> Cost:
    """Cost of `sets` conditions, each a set of every language on every language."""
    passes = sets * len(study.languages) ** 2
    return Cost(passes=passes, loss_tokens=passes * study.options.tokens)


# The paper's experiments


def _perplexity(study: Study) -> Tables:
    options = study.perplexity_options()
    lines = losses(study.work, study.neurons, options, study.progress)
    table = summary(lines, study.neurons, options)
    measured = effects(study.work, {("lape", len(study.neurons.union)): study.neurons}, study.languages, study.progress)
    return {
        "perplexity": table,
        "controlled": controlled(lines, study.languages, options.resamples, options.seed),
        "published": frontier(measured, study.over, options.resamples, options.seed),
    }


def _perplexity_cost(study: Study) -> Cost:
    own, controls = len(study.languages) ** 2, 2 * study.options.draws * len(study.languages)
    base = len(study.languages)
    return Cost(own + controls + base, (own + controls + base) * study.options.tokens)


def _frontier(study: Study) -> Tables:
    measured = _measured(study)
    options = study.options
    tables = {
        "frontier": frontier(measured, study.over, options.resamples, options.seed),
        "matrix": matrix(measured, options.resamples, options.seed),
    }
    compared = [
        advantages(measured, method, measured.methods, study.over, options.resamples, options.seed)
        for method in ("lape", "difference", "probability")
        if method in measured.methods
    ]
    return tables | {"advantages": pl.concat(compared)}


def _measured(study: Study) -> Effects:
    sets: dict[tuple[str, int], LanguageNeurons] = {}
    for method in study.options.compared:
        for size in study.sizes(method):
            sets[method, size] = found = study.chosen(method, size)
            study.note("frontier", *(f"{method}, {size}: {note}" for note in found.notes))
    return effects(study.work, sets, study.languages, study.progress)


def _frontier_cost(study: Study) -> Cost:
    return _rows(study, sum(len(study.sizes(method)) for method in study.options.compared))


def _sweep(study: Study) -> Tables:
    space = len(study.stats.space)
    sets = {
        ("lape", round(rate * space)): identify(study.stats, reliability=False, rate=rate)
        for rate in sorted({*study.options.rates, 0.01})
    }
    measured = effects(study.work, sets, study.languages, study.progress)
    table = frontier(measured, study.over, study.options.resamples, study.options.seed)
    grown = growth(measured, "lape", study.over, study.options.resamples, study.options.seed)
    return {"sweep": table.with_columns((pl.col("size") / space).alias("rate")), "growth": grown}


def _layers(study: Study) -> Tables:
    return {
        "layers": layers(study.neurons, resamples=study.options.resamples, seed=study.options.seed),
        "histogram": study.neurons.by_layer(),
    }


def _similarity(study: Study) -> Tables:
    options = study.options
    lines = {language: study.lines[language] for language in study.languages}
    found = similarity(
        study.model,
        study.tokenizer,
        lines,
        sentences=options.sentences,
        resamples=options.resamples,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        progress=study.progress,
    )
    return {"dominance": found.dominance, "pairs": found.pairs}


def _similarity_cost(study: Study) -> Cost:
    count = min(study.options.sentences, len(next(iter(study.lines.values()))))
    per_line = study.options.tokens / max(len(study.evaluation[0]), 1)
    return Cost(body_tokens=round(count * per_line * len(study.languages)))


def _amount(study: Study) -> Tables:
    halves = split_halves(study.stats, method_named("lape"), progress=study.progress)
    return {
        "amount": amount(study.stats, method_named("lape"), study.options.seed),
        "reliability": reliability(study.neurons, halves),
    }


def _domain(study: Study) -> Tables:
    texts = {language: Documents(["\n".join(study.lines[language])]) for language in study.languages}
    other = record(
        study.model,
        study.tokenizer,
        texts,
        tokens=study.options.domain_tokens,
        batch_tokens=study.options.batch_tokens,
        progress=study.progress,
    )
    return {"domain": domain(study.stats, other, method_named("lape"), study.options.seed)}


def _domain_cost(study: Study) -> Cost:
    return Cost(body_tokens=study.options.domain_tokens * len(study.languages))


def _languages(study: Study) -> Tables:
    return {"dropped": dropped(study.stats, method_named("lape"))}


def _resource(study: Study) -> Tables:
    """Effect against bits per parallel sentence; the evaluated lines are the same in all languages."""
    rows = []
    for language in study.languages:
        before = study.work.unedited(language)
        after = study.work.off(study.neurons[language], language)
        count = len(before.nll)
        own = float(after.nll.sum() - before.nll.sum())
        rows.append(
            {
                "language": language,
                "bits_per_sentence": float(before.nll.sum()) / count / float(np.log(2)),
                "own_per_sentence": own / count,
                "own": own / max(int(before.tokens.sum()), 1),
                "neurons": len(study.neurons[language]),
                "sentences": count,
            }
        )
    return {"resource": pl.DataFrame(rows)}


def _overlap(study: Study) -> Tables:
    counts = {
        language: np.bincount(study.work.corpora[language].tokens).astype(np.int64) for language in study.languages
    }
    tests = [
        overlap_tests(study.neurons, tokens=counts, measure=measure, seed=study.options.seed).with_columns(
            pl.lit(measure).alias("measure")
        )
        for measure in ("jaccard", "over_chance")
    ]
    return {"overlap": overlap_chance(study.neurons), "mantel": pl.concat(tests)}


PARTS: tuple[Part, ...] = (
    Part("layers", "where the neurons lie", _layers, quick=True),
    Part("perplexity", "LAPE's sets off, with controls (a) and (b)", _perplexity, _perplexity_cost, quick=True),
    Part("frontier", "ways of choosing at equal numbers of neurons", _frontier, _frontier_cost, quick=True),
    Part("sweep", "number of neurons against effect", _sweep, lambda study: _rows(study, len(study.options.rates))),
    Part("similarity", "sentence similarity and dominance across layers", _similarity, _similarity_cost),
    Part("amount", "how much text the sets need", _amount, quick=True),
    Part("domain", "whether sets follow the kind of text", _domain, _domain_cost),
    Part("languages", "how sets move with the languages compared", _languages, quick=True),
    Part("resource", "effect against bits per sentence (descriptive)", _resource, quick=True),
    Part("overlap", "which languages share neurons, and why", _overlap, quick=True),
)
"""In the order in which they are run."""
__all__ = ["MEAN", "PARTS", "Cost", "Part"]
