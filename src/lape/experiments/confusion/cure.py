"""One thought, a cure for answers in the wrong language: edits and a line in the prompt, chosen on half the questions, reported on the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from torch import nn

from lape.data.texts import Texts
from lape.experiments.confusion.decision import chosen, used
from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.search import PLAN, Search
from lape.experiments.confusion.table import CURES, rates
from lape.experiments.confusion.task import CureOptions, CureTask, check_languages
from lape.experiments.confusion.trial import PROMPT, UNEDITED
from lape.measure.result import Result
from lape.model.find import find
from lape.model.identity import check_made_with, describe
from lape.progress import Progress, shown
from lape.recording.record import record
from lape.ship import lora
from lape.signs import many
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
    options: CureOptions,
    *,
    to: str,
    folder: str | Path,
    stats: ActivationStats | None = None,
    tokens: int = 6000,
    document: Literal["file", "line"] = "file",
    column: str = "text",
    keep: Sequence[str] = (),
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
    to which the adapter's constants are fitted (see `lape.export`); `document`, `column`: how they are
    read, as of `lape.record`. `stats`: of the same model with `to` and other languages; by default they are
    recorded, on `tokens` of each language, and kept in `folder/run`. `folder`: where finished parts are kept, and the adapter is written
    (`folder/adapter`). `keep`: languages whose answers must stay as they are though the adapter is always on, and `code`. Where a chat template can switch
    reasoning off, it is. Further: see `CureOptions` and `confusion`.

    Gives `confusion_cures` (what was tried: `CURES` of `lape.experiments.confusion.table`) and the tables of `confusion` on the second half, a condition
    each. Raises what `confusion` and `export` do, TextError for fewer than 40 questions, OptionError for a model that reasons before it answers.

    Example:
        >>> from lape.experiments.confusion.cure import CureOptions, cure
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> asked = default_prompts(["fr"], most=40)
        >>> some = {"en": "en.txt", "fr": "fr.txt"}
        >>> few = {"sets": ("difference:5",), "strengths": (1.0,), "new_tokens": 4, "line": "fr"}
        >>> found = cure(model, tokenizer, asked, some, CureOptions(**few), to="fr", folder="fix", tokens=300)
        >>> found["confusion_cures"]["family"].to_list()
        ['none', 'prompt', 'adapter', 'both']
    """
    task = CureTask(prompts, texts, to, options, keep, stats, tokens, document, column, words, lid)
    return search_for(task, model, tokenizer, Path(folder), progress=progress)


def search_for(task: CureTask, model: Any, tokenizer: Any, folder: Path, *, progress: Progress = shown) -> Result:
    """`cure`, of a task that was checked already."""
    lora.check(find(model).sites)
    files.same_run(folder, {**task.state(), **describe(model, tokenizer)})
    stats = task.stats or _recorded(model, tokenizer, task, folder / RUN, progress)
    check_languages(task.to, stats.languages, "statistics")
    check_made_with(model, tokenizer, statistics=stats)
    return _searched(Search(model, tokenizer, task, stats, folder, progress))


def _recorded(model: Any, tokenizer: Any, task: CureTask, place: Path, progress: Progress) -> ActivationStats:
    """Statistics of the texts, which a run that was stopped may have left."""
    if place.exists():
        return ActivationStats.load(place)
    return record(model, tokenizer, task.texts, tokens=task.tokens, **task.reading, out=place, progress=progress)


def _searched(search: Search) -> Result:
    """Choose on the first prompts, report on the second."""
    first, second = search.task.first, search.task.second
    rows = {one.setting: search.answered(one, first) for one in (UNEDITED, PROMPT)}
    search.refuse_reasoning(first)
    search.learn_bounds(first, search.task.keep)
    search.learn_heads(first)
    tried = search.tried("adapter")
    search.cells.record(PLAN, lambda: {"screened": len(tried)})
    search.notes.append(
        f"{many(len(tried), 'edit')} alone and {len(tried)} with the line were screened, of which at most {min(len(tried), search.task.answered)} each, the "
        "best within the bounds, "
        f"answered; chosen on {len(first)} prompts, reported on {len(second)} to other questions."
    )
    for family in ("adapter", "both"):
        rows |= search.family(family, first)
    table = chosen(pl.DataFrame([*rows.values()], schema=CURES))
    judged = search.reported(table, second)
    table = used(table, judged)
    shown, changes = rates(judged)
    search.ship(table, shown)
    tables = {"confusion": shown, "confusion_changes": changes, "confused_answers": judged, "confusion_cures": table}
    return Result(tables, tuple(search.notes))
