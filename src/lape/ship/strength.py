"""How strong a switch has to be: answers to development questions under an edit that acts on every token, as an adapter does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from lape.data import samples
from lape.edit.steer import SHIPPED
from lape.errors import OptionError
from lape.measure.answers import Interview, JudgedOptions, Split, Tally
from lape.measure.bench import Bench
from lape.measure.generation import GenerationOptions
from lape.measure.methods import CEILING, NONE, Setting
from lape.progress import Progress, each, shown
from lape.values.neurons import LanguageNeurons
from lape.values.stats import ActivationStats

STRENGTHS = (0.5, 1.0, 1.5, 2.0)
"""What is tried."""
_CANDIDATES = 8
"""An answer is on topic if its own question makes it likelier than the others of this many do."""
CHOICES = {
    "setting": pl.String,
    "strength": pl.Float64,
    "answers": pl.Int64,
    **{f"{share}{end}": pl.Float64 for share in ("in_language", "good") for end in ("", "_low", "_high")},
}
"""A row per strength, and for the unedited model and the one asked in the target language: `answers`, and the shares in the target language
(`in_language`) and good (`good`: and fluent, on topic, neither refused nor mixed), with 95 % intervals `_low`, `_high` over questions (null under 20).
"""


def strengths(
    bench: Bench,
    questions: Mapping[str, Sequence[str]],
    native: Mapping[str, Sequence[str]],
    *,
    to: str,
    sources: Sequence[str],
    sets: str,
    tried: Sequence[float] = STRENGTHS,
    progress: Progress = shown,
) -> pl.DataFrame:
    """Each strength on questions asked in the source languages: `CHOICES`. `native`: other questions, whose unedited answers bound what is fluent."""
    names = list(dict.fromkeys([*sources, to, *bench.stats.languages]))
    known = [name for name in names if name in questions]
    candidates: dict[Split, int] = {"development": _CANDIDATES}
    interview = Interview(bench, {"development": questions}, native, known, JudgedOptions(), candidates)
    some = {f"× {one:g}": one for one in tried}
    settings = [NONE, CEILING, *(_shipped(name, sets, one) for name, one in some.items())]
    tally, rows = Tally(range(len(questions[to])), 2000, 0), []
    for setting in each(settings, "choosing the strength on development questions", progress):
        pairs = [(to, to)] if setting.ceiling else [(source, to) for source in sources]
        answers = pl.concat(interview.ask("development", setting, pair) for pair in pairs)
        row: dict[str, object] = {"setting": setting.name, "strength": some.get(setting.name), "answers": len(answers)}
        for share in ("in_language", "good"):
            row |= tally.drawn.named(share, tally.share(answers, pl.col(share)))
        rows.append(row)
    return pl.DataFrame(rows, schema=CHOICES)


def on_samples(
    model: Any,
    tokenizer: Any,
    stats: ActivationStats,
    neurons: LanguageNeurons,
    *,
    to: str,
    sets: str,
    progress: Progress = shown,
) -> pl.DataFrame | None:
    """`strengths` on the bundled development questions, asked in the first two other languages of the statistics that have some.

    None where there are none in the language that is to be written, or in any other.
    """
    known = [one for one in stats.languages if one in samples.LANGUAGES]
    sources = [one for one in known if one != to][:2]
    if to not in samples.LANGUAGES or not sources:
        return None
    asked, native = (samples.questions(part, languages=(*sources, to)) for part in ("development", "choosing"))
    bench = Bench(model, tokenizer, stats, None, GenerationOptions(), neurons=neurons)
    return strengths(bench, asked, native, to=to, sources=sources, sets=sets, progress=progress)


def best(choices: pl.DataFrame) -> float:
    """The strength with the most good answers; of equal ones that with the most in the language; then the weakest."""
    tried = choices.filter(pl.col("strength").is_not_null())
    if not len(tried):
        raise OptionError("No strength was tried. Name one, such as strength=1.")
    chosen = tried.sort(["good", "in_language", "strength"], descending=[True, True, False]).row(0, named=True)
    return float(chosen["strength"])


def _shipped(name: str, sets: str, strength: float) -> Setting:
    return Setting("neurons", name, sets=sets, steer=replace(SHIPPED, strength=strength))
