"""The paper's experiments as parts of a study: each a function from a `Study` to tables."""

from __future__ import annotations

import numpy as np
import polars as pl

from lape.data.texts import Documents
from lape.detect.identify import identify, method_named
from lape.detect.stability import reliability, split_halves
from lape.experiments.amount.run import amount, domain, dropped
from lape.experiments.frontier.run import effects
from lape.experiments.frontier.table import Effects, advantages, frontier, growth, matrix
from lape.experiments.layers.run import layers
from lape.experiments.overlap.run import overlap_chance, overlap_tests
from lape.experiments.perplexity.controlled import controlled
from lape.experiments.perplexity.run import losses, summary
from lape.experiments.similarity.run import similarity
from lape.measure.correlation import spearman
from lape.recording.record import record
from lape.study.part import Cost, matrices
from lape.study.study import Study, Tables
from lape.values.neurons import LanguageNeurons


def perplexity_part(study: Study) -> Tables:
    """LAPE's sets under the published rule, off: each language on each, with controls (a) and (b)."""
    options = study.perplexity_options()
    lines = losses(study.work, study.neurons, options, study.progress)
    table = summary(lines, study.neurons, options)
    measured = effects(study.work, {("lape", len(study.neurons.union)): study.neurons}, study.languages, study.progress)
    return {
        "perplexity": table,
        "controlled": controlled(lines, study.languages, options.resamples, options.seed),
        "published": frontier(measured, study.over, options.resamples, options.seed),
    }


def perplexity_cost(study: Study) -> Cost:
    """The matrix, the controls on their own language, and the unedited model."""
    own, controls = len(study.languages) ** 2, 2 * study.options.draws * len(study.languages)
    base = len(study.languages)
    return Cost(own + controls + base, (own + controls + base) * study.options.tokens)


def frontier_part(study: Study) -> Tables:
    """Ways of choosing at equal numbers of neurons: own against others, and who is more selective at equal own effect."""
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
    for method in study.compared:
        for size in study.sizes(method):
            sets[method, size] = found = study.chosen(method, size)
            study.note("frontier", *(f"{method}, {size}: {note}" for note in found.notes))
    return effects(study.work, sets, study.languages, study.progress)


def frontier_cost(study: Study) -> Cost:
    """One matrix a way of choosing and size."""
    return matrices(study, sum(len(study.sizes(method)) for method in study.compared))


def sweep_part(study: Study) -> Tables:
    """LAPE's own and others' effect at several shares of all neurons."""
    space = len(study.stats.space)
    sets = {
        ("lape", round(rate * space)): identify(study.stats, reliability=False, rate=rate)
        for rate in sorted({*study.options.rates, 0.01})
    }
    measured = effects(study.work, sets, study.languages, study.progress)
    table = frontier(measured, study.over, study.options.resamples, study.options.seed)
    grown = growth(measured, "lape", study.over, study.options.resamples, study.options.seed)
    return {"sweep": table.with_columns((pl.col("size") / space).alias("rate")), "growth": grown}


def sweep_cost(study: Study) -> Cost:
    """One condition a rate; the published one is measured already."""
    return matrices(study, len(study.options.rates))


def layers_part(study: Study) -> Tables:
    """Where the neurons lie."""
    return {
        "layers": layers(study.neurons, resamples=study.options.resamples, seed=study.options.seed),
        "histogram": study.neurons.by_layer(),
    }


def similarity_part(study: Study) -> Tables:
    """Dominance and retrieval across layers."""
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


def similarity_cost(study: Study) -> Cost:
    """One pass of the body over the sentences."""
    count = min(study.options.sentences, len(next(iter(study.lines.values()))))
    per_line = study.options.tokens / max(len(study.evaluation[0]), 1)
    return Cost(body_tokens=round(count * per_line * len(study.languages)))


def amount_part(study: Study) -> Tables:
    """How much text the sets need: the reliability curve, and the reliability of the sets themselves."""
    halves = split_halves(study.stats, method_named("lape"), progress=study.progress)
    return {
        "amount": amount(study.stats, method_named("lape"), study.options.seed),
        "reliability": reliability(study.neurons, halves),
    }


def domain_part(study: Study) -> Tables:
    """How far sets from the parallel text's domain agree with those recorded, beside halves of one domain."""
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


def domain_cost(study: Study) -> Cost:
    """Recording the parallel text."""
    return Cost(body_tokens=study.options.domain_tokens * len(study.languages))


def languages_part(study: Study) -> Tables:
    """How sets move when a language is left out."""
    return {"dropped": dropped(study.stats, method_named("lape"))}


def resource_part(study: Study) -> Tables:
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
    table = pl.DataFrame(rows)
    alike = spearman(table["bits_per_sentence"].to_numpy(), table["own_per_sentence"].to_numpy())
    if alike is not None:
        study.note(
            "resource",
            f"rank correlation of bits and own effect, both a sentence: {alike:.2f} over {len(table)} languages",
        )
    return {"resource": table}


def overlap_part(study: Study) -> Tables:
    """Which languages share neurons, and whether genealogy, script or shared tokens explain it (Mantel)."""
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
