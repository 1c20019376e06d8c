"""One thought, a cure for answers in the wrong language: edits and a line in the prompt, chosen on half the questions, reported on the others."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from torch import nn

from lape.data import samples
from lape.data.languages import tag
from lape.data.texts import Documents, Source, Texts
from lape.errors import OptionError, TextError
from lape.experiments.confusion.decision import chosen, halves, used
from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.search import CODE, CureOptions, Search
from lape.experiments.confusion.table import CURES, rates
from lape.experiments.confusion.trial import PROMPT, UNEDITED, with_line
from lape.measure.bench import check_specs
from lape.measure.result import Result
from lape.model.find import find
from lape.model.identity import check_made_with, describe
from lape.options import given
from lape.progress import Progress, shown
from lape.recording.record import record
from lape.ship import lora
from lape.store import files
from lape.values.stats import ActivationStats

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


RUN = "run"
"""Where the statistics are, within the folder, where they were recorded for it."""


def cure(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    texts: Texts,
    *,
    to: str,
    folder: str | Path,
    stats: ActivationStats | None = None,
    tokens: int = 6000,
    keep: Sequence[str] = (),
    new_tokens: int = 100,
    repetition_penalty: float = 1.1,
    batch: int = 40,
    system: str | None = None,
    line: str = "Always answer in {language}.",
    minutes: float = 60.0,
    sets: tuple[str, ...] = ("difference:100", "difference:200", "difference:50", "lape:100"),
    strengths: tuple[float, ...] = (0.25, 0.35, 0.5, 0.15, 0.75, 1.0),
    heads: int = 1,
    factors: tuple[float, ...] = (2.0, 1.5),
    kl: float = 0.1,
    kept_kl: float = 0.05,
    resamples: int = 2000,
    words: str | Path | None = None,
    lid: str | Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Look for what makes a chat model answer in a language: a line in the prompt, an adapter, or both; and write the adapter, if one earns it.

    Questions are halved. On one half the unedited model, the line, and edits are compared: those that raise the language's neurons at the gate
    (`lape.edit.steer.SHIPPED`), that multiply what an attention head writes, and both, alone and beside the line. The head is the one that makes right
    answers, as they are given with the line, likeliest beside wrong ones (`lape.measure.heads.rank_heads`). Each edit is screened by how much of the first
    tokens is in other languages, and by its KL divergence from the unedited model; the best of those within the bounds answer, and the one of each family
    with the fewest failures is chosen. On the other half these are reported, edits as the adapters that are shipped. An adapter is worth it if it failed
    least on the first half, and on the second fails less than line and unedited model by more than chance: the 95 % interval of the difference, paired over
    questions, is below 0.

    `prompts`: as of `confusion`; those that want `to` are taken. `texts`: text of `to` and several other languages, by which its neurons are found, and
    to which the adapter's constants are fitted (see `lape.export`). `stats`: of the same model with `to` and other languages; by default they are
    recorded, on `tokens` of each language, and kept in `folder/run`. `folder`: where finished parts are kept, and the adapter is written
    (`folder/adapter`). `keep`: languages whose answers must stay as they are though the adapter is always on, and `code`. Where a chat template can switch
    reasoning off, it is. Further: see `CureOptions` and `confusion`.

    Gives `confusion_cures` (what was tried: `CURES` of `lape.experiments.confusion.table`) and the tables of `confusion` on the second half, a condition
    each. Raises what `confusion` and `export` do, TextError for fewer than 40 questions, OptionError for a model that reasons before it answers.

    Example:
        >>> from lape.experiments.confusion.cure import cure
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> asked = default_prompts(["fr"], most=40)
        >>> some = {"en": "en.txt", "fr": "fr.txt"}
        >>> few = {"sets": ("difference:5",), "strengths": (1.0,), "new_tokens": 4, "tokens": 300}
        >>> found = cure(model, tokenizer, asked, some, to="fr", folder="fix", line="fr", **few)
        >>> found["confusion_cures"]["family"].to_list()
        ['none', 'prompt', 'adapter', 'both']
    """
    options = given(CureOptions, locals())
    to = tag(to)
    asked = [_with_system(one, options.system) for one in prompts if one.language == to]
    first, second = halves(asked)
    kept = [_kept_name(one, to) for one in keep]
    check_specs(options.sets)
    lora.check(find(model).sites)
    _check_languages(to, [*map(tag, texts)], "texts")
    folder = Path(folder)
    files.same_run(
        folder,
        {
            "to": to,
            "keep": kept,
            "options": asdict(options),
            "judge": [str(words), str(lid)],
            "statistics": None if stats is None else stats.digest,
            "texts": {language: _content(texts[language]) for language in texts},
            "tokens": tokens,
            "prompts": [asdict(one) for one in asked],
            **describe(model, tokenizer),
        },
    )
    if stats is None:
        stats = _recorded(model, tokenizer, texts, tokens, folder / RUN, progress)
    _check_languages(to, stats.languages, "statistics")
    check_made_with(model, tokenizer, statistics=stats)
    search = Search(model, tokenizer, stats, texts, to, options, folder, (words, lid), progress)
    return _searched(search, first, second, kept)


def _with_system(prompt: Prompt, system: str | None) -> Prompt:
    """A prompt with what the system is told, where it says nothing of its own."""
    own = prompt.system or (prompt.messages and prompt.messages[0]["role"] == "system")
    return prompt if own or not system else with_line(prompt, system)


def _check_languages(to: str, known: Sequence[str], what: str) -> None:
    """Raises TextError where the wanted language is not there, or no other."""
    if to not in known or len(known) < 2:
        raise TextError(f"The {what} are in {', '.join(known)}. Expected {to} and at least one other language.")


def _content(source: Source) -> str:
    """What tells texts apart: of those in memory a hash, of others where they lie."""
    if isinstance(source, Documents):
        return hashlib.sha256("\0".join(source.texts).encode("utf-8", "surrogatepass")).hexdigest()
    return str(source)


def _recorded(
    model: Any, tokenizer: Any, texts: Texts, tokens: int, place: Path, progress: Progress
) -> ActivationStats:
    """Statistics of the texts, which a run that was stopped may have left."""
    if place.exists():
        return ActivationStats.load(place)
    return record(model, tokenizer, texts, tokens=tokens, out=place, progress=progress)


def _kept_name(name: str, to: str) -> str:
    """A language whose answers are kept, or code. Raises OptionError for the wanted one, and for one without bundled questions."""
    known = samples.EVERY
    if name != CODE and tag(name) not in known:
        raise OptionError(f"There are no bundled questions in {name}. keep takes {', '.join(known)} and {CODE}.")
    if name != CODE and tag(name) == to:
        raise OptionError(f"keep names {to}, which is what answers should be in: that is bounded by kl. Leave it out.")
    return name if name == CODE else tag(name)


def _searched(search: Search, first: Sequence[Prompt], second: Sequence[Prompt], keep: Sequence[str]) -> Result:
    """Choose on the first prompts, report on the second."""
    rows = {one.setting: search.answered(one, first) for one in (UNEDITED, PROMPT)}
    search.refuse_reasoning(first)
    search.learn_bounds(first, keep)
    search.learn_heads(first)
    plan = search.plan(first, second)
    search.notes.append(
        f"Of edits alone and of edits beside the line {plan['screened']} were screened each, of which at most {plan['answered']}, the best within the "
        f"bounds, answered; chosen on {len(first)} prompts, reported on {len(second)} to other questions."
    )
    for family in ("adapter", "both"):
        rows |= search.family(family, first, plan)
    table = chosen(pl.DataFrame([*rows.values()], schema=CURES))
    judged = search.reported(table, second)
    table = used(table, judged, search.options.resamples)
    shown, changes = rates(judged, resamples=search.options.resamples)
    search.ship(table, shown)
    tables = {"confusion": shown, "confusion_changes": changes, "confused_answers": judged, "confusion_cures": table}
    return Result(tables, tuple(search.notes))
