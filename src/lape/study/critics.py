"""The critics' experiments as parts of a study."""

from __future__ import annotations

from lape.evaluate.scripts import scripts
from lape.study.part import Cost
from lape.study.study import Study, Tables
from lape.texts import Documents
from lape.variants import libraries_missing


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
        evaluation_tokens=options.tokens,
        steps=5,
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
        passes=20 * languages,
        loss_tokens=20 * languages * options.tokens,
        body_tokens=4 * languages * options.script_tokens,
    )
