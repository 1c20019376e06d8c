"""The critics' experiments as parts of a study."""

from __future__ import annotations

import polars as pl

from lape.data.rewriting import libraries_missing
from lape.data.texts import Documents
from lape.experiments.necessity.run import Necessity, necessity
from lape.experiments.null.run import null_entropy
from lape.experiments.patching.run import PatchingOptions, patchings
from lape.experiments.scripts.run import scripts
from lape.model.precision import in_float32
from lape.study.part import Cost, matrices
from lape.study.study import Study, Tables
from lape.study.texts import spread


def scripts_part(study: Study) -> Tables:
    """Script or language: the same sentences romanised, converted, shuffled and noised."""
    languages = study.over
    options = study.options
    table = scripts(
        study.model,
        study.tokenizer,
        {language: study.texts[language] for language in languages},
        {language: Documents(["\n".join(study.evaluated_lines(language))]) for language in languages},
        study.stats,
        tokens=options.script_tokens,
        evaluation_tokens=2 * options.tokens,  # all of the evaluated lines
        apart=True,
        steps=4,
        resamples=options.resamples,
        seed=options.seed,
        progress=study.progress,
    )
    return {"scripts": table}


def scripts_missing(study: Study) -> str | None:
    """The recorded text itself is read again, and libraries write it differently."""
    lacking = [language for language in study.over if language not in study.texts]
    if lacking:
        return f"the recorded text of {', '.join(lacking)} was not given (--text, beside --run)"
    return libraries_missing()


def scripts_cost(study: Study) -> Cost:
    """About four writings a language, recorded; each measured under two sets and without."""
    languages, options = len(study.over), study.options
    return Cost(
        passes=19 * languages,
        loss_tokens=19 * languages * options.tokens,
        body_tokens=4 * languages * options.script_tokens,
    )


def patching_part(study: Study) -> Tables:
    """Zeroing, or setting to the mean over the other languages."""
    options = PatchingOptions(mean="others", resamples=study.options.resamples, seed=study.options.seed)
    found = patchings(study.work, study.stats, study.neurons, options, progress=study.progress)
    return {"patching": found.patching, "patched_matrix": found.matrix}


def patching_cost(study: Study) -> Cost:
    """One more condition; zeroing is measured already."""
    return matrices(study, 1)


def sums_missing(study: Study) -> str | None:
    """Statistics made from counts alone have no means."""
    known = all("sum" in study.stats[language].tensors for language in study.languages)
    return None if known else "the statistics were made from counts alone; record the model: lape record"


GROUP = 16
"""Neurons of a group that is switched off together: what one does to a few hundred tokens says little of what it does to others."""


def necessity_part(study: Study) -> Tables:
    """Single neurons and groups switched off, against what LAPE, probabilities, differences and attributions say of them."""
    tables: dict[str, list[pl.DataFrame]] = {"ablated": [], "correlations": [], "predictions": []}
    for size, count in _counts(study).items():
        with in_float32(study.model):  # the damage of one neuron is smaller than the rounding of half precision
            found = _necessity(study, size, count)
        for name, some in tables.items():
            table = getattr(found, name).with_columns(pl.lit(size).alias("size"))
            some.append(table.drop("neurons") if name == "ablated" else table)
    return {name: pl.concat(some) for name, some in tables.items()}


def _counts(study: Study) -> dict[int, int]:
    """Size of a group -> how many groups of it."""
    return {1: study.options.groups, GROUP: max(8, study.options.groups // 3)}


def _necessity(study: Study, size: int, count: int) -> Necessity:
    options, language = study.options, study.necessity_language
    return necessity(
        study.model,
        study.tokenizer,
        study.stats,
        spread({language: study.lines[language]}, options.necessity_tokens, study.tokenizer)[1],
        study.neurons,
        size=size,
        groups=count,
        own=0,
        layerwise=False,
        resamples=options.resamples,
        seed=options.seed,
        batch_tokens=options.batch_tokens,
        folder=study.cells("necessity"),
        progress=study.progress,
    )


def necessity_cost(study: Study) -> Cost:
    """One pass a neuron or group; the estimates, twice, take 13 backward passes, each three times as long; float32 takes three times as long as half
    precision on a CPU.
    """
    passes = sum(_counts(study).values())
    return Cost(passes=passes, loss_tokens=3 * (passes + 2 * 3 * 13) * study.options.necessity_tokens)


def null_part(study: Study) -> Tables:
    """How low entropies get where there is one language alone, in slices."""
    return {"null": null_entropy(study.stats, study.neurons, seed=study.options.seed)}


def null_missing(study: Study) -> str | None:
    """As many slices as languages are made of the folds."""
    count = len(study.languages)
    if study.stats.folds < count:
        return f"there are {count} languages and {study.stats.folds} folds to make slices of"
    empty = [k for k in study.languages if not bool(study.stats[k].tokens[:count].all())]
    return f"{', '.join(empty)}: too little text was recorded for {count} slices" if empty else None
