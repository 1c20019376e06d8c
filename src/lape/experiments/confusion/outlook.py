"""How far a search for a cure is, and how long the rest takes on this machine. It is only said: nothing is chosen by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from lape.experiments.confusion.cure import RUN
from lape.experiments.confusion.prompts import Prompt, evenly
from lape.experiments.confusion.run import ConfusionOptions, text_of
from lape.experiments.confusion.search import COMPARED, FIRST, PLAN, SCREENED
from lape.experiments.confusion.task import CureTask
from lape.measure.divergence import TOKENS as COMPARED_TOKENS
from lape.measure.generation import GenerationOptions, write
from lape.measure.prompts import prompt_ids
from lape.ship.constant import TOKENS as FITTED_TOKENS
from lape.store import files
from lape.store.cells import Cells

_READ, _WRITTEN = 1024, 8
"""Tokens that are read, at most, and generated after each prompt, to see how fast that is."""
_FITTED = 5
"""What fitting an adapter and comparing it with the edit takes, in readings of its text."""


@dataclass(frozen=True)
class Pace:
    """How fast a model is, in seconds per token with a batch of prompts at once."""

    read: float
    write: float
    prompt: float
    """Mean tokens of a prompt."""


@dataclass(frozen=True)
class Step:
    """A part of the search."""

    what: str
    done: int
    total: int
    seconds: float
    """How long one of the `total` takes."""

    @property
    def left(self) -> float:
        """Seconds to the end of the step."""
        return (self.total - self.done) * self.seconds


def measure_pace(model: Any, tokenizer: Any, task: CureTask) -> Pace:
    """Time some prompts that are read, and a batch that is answered with a few tokens."""
    prompts = evenly(task.first, task.options.batch)
    texts = [text_of(tokenizer, prompt, ConfusionOptions()) for prompt in prompts]
    lengths = [len(prompt_ids(tokenizer, text)) for text in texts]

    def seconds(count: int, tokens: int) -> float:
        began = time.perf_counter()
        write(model, tokenizer, texts[:count], GenerationOptions(tokens, batch=count))
        return time.perf_counter() - began

    seconds(1, 2)  # the first of all is slower
    several = max(1, sum(end <= _READ for end in accumulate(lengths)))
    reading = seconds(several, 1) / sum(lengths[:several])
    writing = seconds(len(texts), 1 + _WRITTEN) - reading * sum(lengths)
    return Pace(reading, max(0.0, writing) / (_WRITTEN * len(texts)), sum(lengths) / len(lengths))


def steps(task: CureTask, folder: Path, pace: Pace) -> list[Step]:
    """The parts of a search in a folder. What depends on what it finds is counted as if it were all."""
    cells, options = folder / files.CELLS, task.options
    edits = len(options.sets) * len(options.strengths) + 2 * options.heads * len(options.factors)
    screened = (Cells(cells).kept_record(PLAN) or {"screened": min(options.candidates, edits)})["screened"]
    compared = (1 + len(task.keep)) * 2 * COMPARED * (pace.prompt + COMPARED_TOKENS) * pace.read
    screen = SCREENED * (pace.prompt * pace.read + FIRST * pace.write) + compared
    fit = _FITTED * len(task.texts) * FITTED_TOKENS * pace.read
    adapters = [*cells.glob("adapter*.folder")]
    found = [
        Step("edits screened", len([*cells.glob("screened*.json")]), 2 * screened, screen),
        _round("to choose by", cells, "first", task.first, 2 + 2 * min(task.answered, screened), task, pace),
        Step("adapters made", len(adapters), 2, fit),
        _round("to test with", cells, "second", task.second, 4, task, pace),
    ]
    if task.stats is not None:
        return found
    done = len(task.texts) if (folder / RUN).exists() else len([*files.partial(folder / RUN).glob("*.recorded")])
    return [Step("languages recorded", done, len(task.texts), task.tokens * pace.read), *found]


def _round(why: str, cells: Path, half: str, prompts: Sequence[Prompt], total: int, task: CureTask, pace: Pace) -> Step:
    """Answers of a half of the questions, once for each setting."""
    groups = len({prompt.task for prompt in prompts})
    done = sum(len([*place.glob(f"{files.CELLS}/*.parquet")]) == groups for place in cells.glob(f"{half}*.folder"))
    seconds = len(prompts) * (pace.prompt * pace.read + task.options.new_tokens * pace.write)
    return Step(f"rounds of answers {why}", done, total, seconds)
