"""How often a model answers in another language than the one asked for: asked and judged, or answers of elsewhere judged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import polars as pl
from torch import nn

from lape.errors import OptionError, TextError
from lape.experiments.confusion.answers import GIVEN, read_log
from lape.experiments.confusion.prompts import Prompt
from lape.experiments.confusion.table import JUDGED, rates
from lape.measure.answer_failures import MOST, Failing, Failures, without_thought
from lape.measure.bootstrap import FEWEST
from lape.measure.generation import SamplingOptions, write
from lape.measure.language_confusion import ALL, Judge
from lape.measure.prompts import Message, ask, conversation, cut, language_name
from lape.measure.result import Result
from lape.model.identity import checksum
from lape.options import Positive
from lape.progress import Progress, shown
from lape.ship import lora
from lape.ship.fit import served as with_adapter
from lape.ship.server import Answering
from lape.signs import many
from lape.store import files
from lape.store.cells import Cells

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
_SHOWN = 80
"""Characters of a prompt that an error names."""
Answer: TypeAlias = Callable[[Sequence[Prompt], int], "Iterator[tuple[str, str | None, bool]]"]
"""Prompts and a seed -> of each, as they come, its answer, the reasoning before it or None, and whether it was cut."""


@dataclass(frozen=True)
class ConfusionOptions(SamplingOptions):
    """How a model is asked whose answers are judged by their language."""

    new_tokens: int = 100
    """At most this many new tokens per answer; the Language Confusion Benchmark gives 100."""
    batch: int = 40
    """Prompts that run at once."""
    system: str | None = None
    """What a chat model is told first; {language} stands for the language that is wanted: "Always answer in {language}."."""
    thinking: bool | None = None
    """Whether a model that reasons before it answers should. Default: as its chat template does by itself."""
    seeds: Positive = 1
    """Draws of each answer, from `seed` on; from several, the noise floor. Needs a temperature; the benchmark draws at 0.3 with top-p 0.75."""
    resamples: Positive = 2000
    """Bootstrap resamples of the questions behind the 95 % intervals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds > 1 and not self.temperature:
            raise OptionError(f"seeds is {self.seeds}, but nothing is drawn. Give a temperature too, such as 0.3.")


def confusion(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    options: ConfusionOptions,
    *,
    condition: str = "",
    adapter: str | Path | None = None,
    words: str | Path | None = None,
    lid: str | Path | None = None,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """Ask a model, and judge by their language what it answers: LCB's rates (Marchisio et al. 2024), and the failures that they pass over.

    Inside of `lape.edited` or `lape.steer`, what the edited model answers. `prompts`: `default_prompts(["fr", "ko"])` or `read_prompts(path)` of
    `lape.experiments.confusion.prompts`. `condition`: what this way of asking is called. `adapter`: the folder of one that the model answers with, as an
    engine would that serves it. `words`, `lid`: as in `lape.measure.language_confusion`. `folder`: where finished parts are kept, so that a run that was
    stopped goes on; one folder for each way of editing. Further: see `ConfusionOptions`.

    Gives the tables of `scored`. Raises OptionError for missing packages, TextError for no prompts, or a language without an identifier.

    Example:
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> from lape.experiments.confusion.run import ConfusionOptions, confusion
        >>> found = confusion(model, tokenizer, default_prompts(["fr"], most=2), ConfusionOptions(new_tokens=4))
        >>> found["confusion"].filter(source="all", language="all").select("task", "answers").rows()
        [('crosslingual', 2), ('monolingual', 2)]
    """
    judge = judge_of(prompts, lid, words)
    parts = [] if adapter is None else lora.read_for(model, Path(adapter))
    made = {"adapter": lora.digest(parts)} if parts else {}
    asked = [asdict(one) for one in prompts]
    cells = _kept(folder, options, condition, prompts=asked, model=checksum(model), **made)
    with with_adapter(model, parts):
        answers = _all(prompts, options, condition, cells, _by_model(model, tokenizer, options), progress)
    template = "in the model's chat template" if getattr(tokenizer, "chat_template", None) else "as a question, Q: … A:"
    return _result(answers, judge, options.resamples, progress, (_how(options, template),))


def served_confusion(
    url: str,
    prompts: Sequence[Prompt],
    options: ConfusionOptions,
    *,
    served: str | None = None,
    remote: bool = False,
    condition: str = "",
    words: str | Path | None = None,
    lid: str | Path | None = None,
    folder: Path | None = None,
    progress: Progress = shown,
) -> Result:
    """The same of a model, or an adapter, that a running server answers with: vLLM, SGLang, llama.cpp, transformers serve or another of OpenAI's interface.

    `url`: such as http://127.0.0.1:8000. `served`: the model's or adapter's name there; by default the only model. `batch`: requests at once. `remote`: let the
    server be on another machine. The key is taken from LAPE_SERVER_KEY. Each answer is kept in `folder` as it comes, so that a run that was stopped asks
    only what is left, also where other prompts are given. Further: see `confusion`. Raises OptionError for a server that gives no usable answer too.

    Example:
        >>> from lape.experiments.confusion.prompts import default_prompts
        >>> from lape.experiments.confusion.run import ConfusionOptions, served_confusion
        >>> try:
        ...     served_confusion("http://192.0.2.1:8000", default_prompts(["fr"], most=1), ConfusionOptions())
        ... except lape.LapeError as error:
        ...     print(error)
        The server http://192.0.2.1:8000 is not on this machine. ... Type remote=True to allow that.
    """
    judge = judge_of(prompts, lid, words)
    answering = Answering.at(url, served, remote=remote)
    cells = _kept(folder, options, condition, served=[url, answering.model.name])
    answers = _all(prompts, options, condition, Cells(None), _by_server(answering, options, cells), progress)
    template = f"through {answering.engine.name}, which answers as {answering.model.name}"
    return _result(answers, judge, options.resamples, progress, (_how(options, template),))


def judge_of(prompts: Sequence[Prompt], lid: str | Path | None, words: str | Path | None) -> Failures:
    """Who judges; what cannot be asked or judged is refused before anything is asked."""
    check_prompts(prompts)
    return Failures(dict.fromkeys(one.language for one in prompts), judge=Judge(lid, words))


def _kept(folder: Path | None, options: ConfusionOptions, condition: str, **asked_of: Any) -> Cells:
    """Where finished parts are kept. A folder with those of another run is refused: all that answers depend on is noted in it."""
    if folder is None:
        return Cells(None)
    how = {name: value for name, value in asdict(options).items() if name != "resamples"}
    files.same_run(folder, {"options": how, "condition": condition, **asked_of})
    return Cells(folder / files.CELLS)


def scored(
    answers: pl.DataFrame,
    *,
    words: str | Path | None = None,
    lid: str | Path | None = None,
    resamples: int = 2000,
    progress: Progress = shown,
) -> Result:
    """Judge answers that were given elsewhere; no model is needed.

    `answers`: columns of `lape.experiments.confusion.answers.GIVEN`, of which `answer` and `language` must be there; `read_answers` reads files.

    Gives the tables `confusion` (`RATES` of `lape.experiments.confusion.table`), `confusion_changes` (`CHANGES`; no rows for a single condition) and
    `confused_answers` (`JUDGED`). Raises OptionError for missing packages, TextError for missing columns, or a language without an identifier.

    Example:
        >>> import polars as pl
        >>> from lape.experiments.confusion.run import scored
        >>> found = scored(pl.DataFrame({"language": ["ko", "ko"], "answer": ["天空是蓝色的，因为光被散射了。", "하늘은 파랗습니다."]}))
        >>> found["confused_answers"].select("kind", "identified").rows()
        [('other_script', 'zh'), (None, 'ko')]
    """
    whole = _whole(answers)
    judge = Failures(whole["language"].unique(maintain_order=True), judge=Judge(lid, words))
    return _result(whole, judge, resamples, progress)


def scored_log(
    paths: Iterable[str | Path],
    languages: Sequence[str] | None = None,
    prompts: Sequence[Prompt] = (),
    *,
    words: str | Path | None = None,
    lid: str | Path | None = None,
    resamples: int = 2000,
    progress: Progress = shown,
) -> Result:
    """Read answers that were given elsewhere, as `read_log` of `lape.experiments.confusion.answers` does, and judge them: `scored`.

    Where lines cannot be judged, which those are whose language the identifier does not know too, `unjudged_lines` is a table of them (`UNJUDGED`), and a
    note says how many and why. Raises what `read_log` and `scored` do.

    Example:
        >>> from lape.experiments.confusion.run import scored_log
        >>> with open("log.jsonl", "w") as file:
        ...     _ = file.write('{"answer": "The sky is blue.", "language": "Korean"}')
        >>> scored_log(["log.jsonl"])["confused_answers"].select("language", "kind").rows()
        [('ko', 'other_script')]
    """
    judge = Judge(lid, words)
    log = read_log(paths, languages, prompts, check=judge.check)
    failures = Failures(log.answers["language"].unique(maintain_order=True), judge=judge)
    found = _result(log.answers, failures, resamples, progress, log.notes)
    return Result({**found, "unjudged_lines": log.unjudged}, found.notes) if len(log.unjudged) else found


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Refuse no prompts, and names that stand for averages. Raises TextError or OptionError."""
    if not prompts:
        raise TextError("There are no prompts. Expected at least one.")
    if ALL in {name for one in prompts for name in (one.source, one.language)}:
        raise OptionError(f"A source or language is called {ALL}, which is what averages are called. Rename it.")


def _all(
    prompts: Sequence[Prompt],
    options: ConfusionOptions,
    condition: str,
    cells: Cells,
    answer: Answer,
    progress: Progress,
) -> pl.DataFrame:
    """What is answered: `GIVEN`, in the order of the prompts, seed by seed; in cells of a task and language."""
    groups: dict[tuple[str, str], list[int]] = {}
    for at, one in enumerate(prompts):
        groups.setdefault((one.task, one.language), []).append(at)
    found: list[tuple[int, int, dict[str, Any]]] = []
    total, done = len(prompts) * options.seeds, 0
    for draw in range(options.seeds):
        for (task, language), places in groups.items():
            progress("answering", done, total)
            some = [prompts[at] for at in places]

            def make(
                some: Sequence[Prompt] = some, seed: int = options.seed + draw, before: int = done
            ) -> pl.DataFrame:
                told = partial(progress, "answering", total=total)
                return _table(some, condition, seed, _counted(answer(some, seed), before, told, options.batch))

            kept = cells.table(f"{draw}-{task}-{language}", make)
            found += [(draw, at, row) for at, row in zip(places, kept.iter_rows(named=True), strict=True)]
            done += len(some)
    progress("answering", total, total)
    return pl.DataFrame([row for _, _, row in sorted(found, key=lambda one: one[:2])], schema=GIVEN)


def _counted(answers: Iterator[T], before: int, told: Callable[[int], None], batch: int) -> Iterator[T]:
    """Answers as they come, told of by batches: those of one come at once, and a pace that is read off the first of them is too slow by as many."""
    for done, one in enumerate(answers, 1):
        if not done % batch:
            told(before + done)
        yield one


def _table(
    prompts: Sequence[Prompt], condition: str, seed: int, answers: Iterable[tuple[str, str | None, bool]]
) -> pl.DataFrame:
    """Prompts with their answers, reasoning, and whether they were cut."""
    rows = []
    for one, (answer, thought, cut_short) in zip(prompts, answers, strict=True):
        key = (condition, one.task, one.source, one.language, one.question, seed)
        rows.append(dict(zip(GIVEN, (*key, one.text, answer.strip(), thought, cut_short), strict=True)))
    return pl.DataFrame(rows, schema=GIVEN)


def _by_model(model: Any, tokenizer: Any, options: ConfusionOptions) -> Answer:
    """Answers of a model at hand."""
    usual = {name: getattr(options, name) for name in vars(SamplingOptions())}
    chats = bool(getattr(tokenizer, "chat_template", None))

    def answer(prompts: Sequence[Prompt], seed: int) -> Iterator[tuple[str, str | None, bool]]:
        for number, at in enumerate(range(0, len(prompts), options.batch)):
            some = prompts[at : at + options.batch]
            how = SamplingOptions(**usual | {"seed": seed + 10_007 * number})  # else every batch has the same draws
            texts = [text_of(tokenizer, one, options) for one in some]
            for one, written in zip(some, write(model, tokenizer, texts, how), strict=True):
                thought, said = without_thought(written.text)
                yield said if chats else cut(said, target=one.language), thought, written.cut

    return answer


def _by_server(served: Answering, options: ConfusionOptions, cells: Cells) -> Answer:
    """Answers of a running server, several requests at once. Each is kept as it comes: what one prompt is answered depends on no other."""
    names = ("new_tokens", "temperature", "top_p", "repetition_penalty", "thinking")
    how = {name: getattr(options, name) for name in names}

    def ask(prompt: Prompt, seed: int) -> dict[str, Any]:
        try:
            answer, thought, cut_short = served.answer(messages_of(prompt, options), **how, seed=seed)
        except OptionError as error:
            rest = "the same command asks only what is left; a prompt that it fails on again can be left out"
            kept = "" if cells.folder is None else f" Answers so far are kept in {cells.folder.parent}: {rest}."
            raise OptionError(f"{error} It was asked: {prompt.text[:_SHOWN]!r}.{kept}") from error
        return {"answer": answer, "thought": thought, "cut": cut_short}

    def answer(prompts: Sequence[Prompt], seed: int) -> Iterator[tuple[str, str | None, bool]]:
        times = Counter[str]()
        named: list[tuple[str, Prompt]] = []
        for prompt in prompts:
            asked = json.dumps([prompt.task, prompt.language, messages_of(prompt, options)])
            digest = hashlib.sha256(asked.encode()).hexdigest()
            times[digest] += 1  # a prompt that comes twice is asked twice
            named.append((f"{seed}-{times[digest]}-{digest}", prompt))

        with ThreadPoolExecutor(options.batch) as pool:
            for kept in pool.map(lambda item: cells.record(item[0], lambda: ask(item[1], seed)), named):
                thought, rest = without_thought(kept["answer"])
                yield rest, kept["thought"] or thought, kept["cut"]

    return answer


def told_to(prompt: Prompt, options: ConfusionOptions) -> str | None:
    """What the system is told: the prompt's own, or else the options', with the language's English name in its place."""
    told = prompt.system or options.system
    return told and told_line(told, prompt.language)


def told_line(line: str, language: str) -> str:
    """What the system is told, with the language's English name in its place."""
    return line.replace("{language}", language_name(language, "en"))


def messages_of(prompt: Prompt, options: ConfusionOptions) -> list[Message]:
    """A prompt as a conversation, with what the system is told where it says nothing of its own."""
    turns = [dict(one) for one in prompt.messages] or [{"role": "user", "content": prompt.text}]
    told = told_to(prompt, options)
    return turns if told is None or turns[0]["role"] == "system" else [{"role": "system", "content": told}, *turns]


def text_of(tokenizer: Any, prompt: Prompt, options: ConfusionOptions) -> str:
    """What a model at hand goes on from."""
    how: dict[str, Any] = {"system": told_to(prompt, options), "thinking": options.thinking}
    if prompt.messages:
        return conversation(tokenizer, prompt.messages, **how)
    return ask(tokenizer, prompt.text, source=prompt.language, target=prompt.language, **how)


def _whole(answers: pl.DataFrame) -> pl.DataFrame:
    """The answers with all columns of `GIVEN`. Raises TextError for those that must be there, or hold something else than text."""
    missing = [name for name in ("answer", "language") if answers.schema.get(name) != pl.String]
    if missing:
        raise TextError(f"The answers have no text in {', '.join(missing)}. Found {', '.join(answers.columns)}.")
    empty: Mapping[str, Any] = {"seed": 0, "prompt": None, "reasoning": None, "cut": None}
    columns = []
    for name, kind in GIVEN.items():
        there = pl.col(name) if name in answers.columns else pl.lit(empty.get(name, ""))
        columns.append(there.cast(kind).alias(name) if name in empty else there.cast(kind).fill_null("").alias(name))
    whole = answers.with_row_index("at").select(*columns, "at")
    named = pl.when(pl.col("question") == "").then(pl.format("{} {}", "source", "at")).otherwise("question")
    return whole.with_columns(named.alias("question")).drop("at")


def _how(options: ConfusionOptions, template: str) -> str:
    """How it was asked, without which a rate means little."""
    system = "no system prompt added" if options.system is None else f"the system prompt {options.system!r}"
    thinking = {None: "the model's default", True: "on", False: "off"}[options.thinking]
    drawn = f"drawn at temperature {options.temperature:g}, top-p {options.top_p:g}, {many(options.seeds, 'seed')} from {options.seed}"
    decoded = drawn if options.temperature else "greedy"
    return (
        f"Asked {template}, with {system}; reasoning mode: {thinking}; {decoded}, at most {options.new_tokens} tokens, repetition penalty "
        f"{options.repetition_penalty:g}."
    )


def _result(
    answers: pl.DataFrame, judge: Failures, resamples: int, progress: Progress, notes: tuple[str, ...] = ()
) -> Result:
    if not len(answers):
        raise TextError("There are no answers. Expected at least one.")
    judged = _judged(answers, judge, progress)
    table, changes = rates(judged, resamples=resamples)
    return Result(
        {"confusion": table, "confusion_changes": changes, "confused_answers": judged}, (*notes, *_notes(judged))
    )


def _judged(answers: pl.DataFrame, judge: Failures, progress: Progress) -> pl.DataFrame:
    """The answers with their verdicts: `JUDGED`, in the order in which they came."""
    parts, done = [], 0
    indexed = answers.with_row_index("at")
    for language in answers["language"].unique(maintain_order=True):
        progress("judging", done, len(answers))
        some = indexed.filter(language=language)
        found = judge(some["answer"].to_list(), language)
        thoughts = judge.language_of(some["reasoning"].to_list())
        rows = [_verdict(one, thought, language) for one, thought in zip(found, thoughts, strict=True)]
        kinds = {name: kind for name, kind in JUDGED.items() if name not in GIVEN}
        parts.append(some.hstack(pl.DataFrame(rows, schema=kinds)))
        done += len(some)
    progress("judging", done, len(answers))
    return pl.concat(parts).sort("at").select(*JUDGED)


def _verdict(one: Failing, thought: str | None, language: str) -> dict[str, Any]:
    verdict = one.verdict
    by_rule = (verdict.skipped, verdict.passed, verdict.without_english(language), verdict.switched)
    judged = (one.kind, one.language, one.span, one.span_language, thought, *by_rule)
    return dict(zip([name for name in JUDGED if name not in GIVEN], judged, strict=True))


def _notes(judged: pl.DataFrame) -> tuple[str, ...]:
    """For which languages there are too few questions, and how many answers are too long to be judged whole."""
    questions = judged.group_by("language", maintain_order=True).agg(pl.col("question").n_unique().alias("questions"))
    few = questions.filter(pl.col("questions") < FEWEST)["language"].to_list()
    few = few if judged["question"].n_unique() >= FEWEST else []  # said of all of them
    long = int((judged["answer"].str.len_chars() > MOST).sum())
    cut_off = f"{many(long, 'answer')} longer than {MOST:,} characters: the beginning was judged."
    return (
        *([f"Too few questions for an interval (under {FEWEST}): {', '.join(few)}."] if few else []),
        *([cut_off] if long else []),
    )
