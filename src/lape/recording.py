"""Run texts through a model and count, neuron by neuron, how often and how strongly each fires."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lape import files
from lape.analyse.reliability import doubling, steadiness
from lape.corpus import Batch, Corpus, Row, batch, batches, prepare
from lape.errors import TextError
from lape.extras import Extra, all_attached, extras
from lape.languages import tag
from lape.models import describe
from lape.options import RecordOptions, given
from lape.progress import Progress, silent
from lape.recorder import Recorder, ResidualRecorder
from lape.shards import Shard
from lape.sites import Sites, body, check_fits, evaluating, find, hidden_states
from lape.stats import ActivationStats, LanguageStats
from lape.texts import Source, Texts, check_source
from lape.weights import Tuned, WeightChange, checked_tuned, compared

COUNTED = ("residual", "bos", "row_tokens", "one_per_row")
"""Options under which tokens are counted: statistics made under different ones are not merged."""


def record(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    options: RecordOptions | None = None,
    *,
    tuned: Tuned | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **changes: Any,
) -> ActivationStats:
    """Record how often and how strongly every neuron fires in each language.

    `texts`: language tag -> path, glob, folder, `hf:NAME`, several of them, or `Documents`. `options` or its fields as
    keywords: see `RecordOptions`. With `out`, the run is a folder: filled as `OUT.partial`, renamed when whole, and a run
    that was killed goes on where it was and ends with the same bits. `tuned`: language tag -> a checkpoint of this model that was
    tuned on it; how far each neuron's weights moved is recorded too (see `lape.weights`), which the method variation reads.

    Raises TextError, ModelError, FileError or MismatchError, before anything is computed where possible.
    """
    options = given(RecordOptions, options, changes)
    if out is not None:
        files.refuse_existing(Path(out), overwrite)
    sources = checked_texts(texts)
    checkpoints = _checked_tuned(tuned, sources)
    found = find(model)
    if options.attribution is not None:
        from lape.attribution import check_gradients  # needs what runs a batch, which is here

        check_gradients(model)
    moved = compared(model, checkpoints, progress=progress) if checkpoints else {}
    manifest = describe(model, tokenizer)
    manifest["counting"] = {name: getattr(options, name) for name in COUNTED}
    manifest["options"] = dataclasses.asdict(options)
    if moved:
        manifest["tuned"] = {language: one.checkpoint for language, one in moved.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if out is None else files.partial(Path(out))
        run = _Run(model, tokenizer, found, options, folder, progress, moved, resumable=out is not None)
        stats = run.run(sources, manifest)
        if out is None:
            return stats
        return _finish(stats, folder, Path(out), sources)


def _finish(stats: ActivationStats, folder: Path, out: Path, sources: dict[str, Source]) -> ActivationStats:
    stats.save(folder / "stats.safetensors", overwrite=True)
    files.write_json(
        folder / "run.json", {"verb": "record", "texts": {k: str(v) for k, v in sources.items()}, **stats.manifest}
    )
    kept = {"stats.safetensors", "run.json"}
    for leftover in sorted(
        folder.iterdir(), key=lambda path: path.name == files.STATE
    ):  # the state last: see _same_run
        if leftover.name not in kept:
            leftover.unlink()
    files.finish(folder, out)
    return ActivationStats.load(out)


def checked_texts(texts: Texts) -> dict[str, Source]:
    """Sources by standard tag. Raises TextError for a tag that is none or comes twice, and for a path with nothing at it."""
    if not isinstance(texts, dict) or not texts:
        raise TextError(
            "No texts were given. Expected one or more of --text TAG=PATH, for example --text fr=french.txt."
        )
    result: dict[str, Source] = {}
    for code, source in texts.items():
        standard = tag(code)
        if standard in result:
            raise TextError(
                f"{standard} is given twice. Give several paths to one language: --text {standard}=A --text {standard}=B."
            )
        check_source(source)
        result[standard] = source
    return result


def _checked_tuned(tuned: Tuned | None, sources: dict[str, Source]) -> dict[str, Any]:
    checkpoints = checked_tuned(tuned) if tuned else {}
    for language in checkpoints:
        if language not in sources:
            raise TextError(
                f"A checkpoint tuned on {language} was given, but no text. Recorded: {', '.join(sources)}. "
                f"Give both: --text {language}=PATH --tuned {language}=PATH."
            )
    return checkpoints


class _Run:
    """The blocks of all languages, counted one after the other, with checkpoints where the run has a folder."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        found: Sites,
        options: RecordOptions,
        folder: Path,
        progress: Progress,
        moved: Mapping[str, WeightChange],
        *,
        resumable: bool,
    ) -> None:
        self.model, self.tokenizer, self.found = model, tokenizer, found
        self.options, self.folder, self.progress, self.resumable = options, folder, progress, resumable
        self._moved = moved
        self._extras: list[Extra] = []
        self._shard = Shard.parse(options.shard or "1/1")

    def run(self, sources: dict[str, Source], manifest: dict[str, Any]) -> ActivationStats:
        fresh = not self.folder.exists()
        try:
            return self._run(sources, manifest)
        except BaseException:
            if fresh and not self._begun():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _run(self, sources: dict[str, Source], manifest: dict[str, Any]) -> ActivationStats:
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        corpora = {
            language: prepare(
                language, source, self.tokenizer, self.options, folder=self.folder, progress=self.progress
            )
            for language, source in sources.items()
        }
        until = self.options.until
        todo = {
            k: batches(corpus, self.options, packs=self.found.packs, mixed=until is not None)
            for k, corpus in corpora.items()
        }
        manifest = {**manifest, "corpus": {k: self._described(corpus, len(todo[k])) for k, corpus in corpora.items()}}
        self._same_run(manifest)
        for corpus in corpora.values():
            check_fits(self.model, self.options.row_tokens, int(corpus.tokens.max()))
        if until is not None:
            todo, manifest["until"] = self._until(until, corpora, todo)
        by_language = {k: LanguageStats(self._language(corpus, todo[k])) for k, corpus in corpora.items()}
        return ActivationStats(self.found.space, by_language, manifest)

    def _until(
        self, mark: float, corpora: dict[str, Corpus], every: dict[str, list[list[Row]]]
    ) -> tuple[dict[str, list[list[Row]]], dict[str, Any]]:
        """Record all languages in turn, to doubling sizes, until their sets come out alike from halves of the text."""
        kept = self.folder / "until.checkpoint"
        curve: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        for done, size in enumerate(doubling(max(map(len, every.values())), self.options.batch_tokens)):
            todo = {language: some[: size // self.options.batch_tokens] for language, some in every.items()}
            if done == len(curve):
                counted = {k: LanguageStats(self._read(corpora[k], some)) for k, some in todo.items()}
                curve.append(steadiness(ActivationStats(self.found.space, counted, {}), self.progress))
                files.write_json(kept, curve)
            if (curve[done]["median"] or 0) >= mark:
                break
        return todo, {"mark": mark, "reached": (curve[-1]["median"] or 0) >= mark, "curve": curve}

    def _described(self, corpus: Corpus, count: int) -> dict[str, Any]:
        return {**corpus.describe(), **self._shard.describe(count, self.options.batch_tokens)}

    def _begun(self) -> bool:
        """Whether the folder holds anything worth going on from."""
        return any(path.name != files.STATE for path in self.folder.glob("*.checkpoint"))

    def _same_run(self, manifest: dict[str, Any]) -> None:
        """A folder that is half full must belong to this very run."""
        if not self.resumable:
            return
        ours = {k: manifest[k] for k in ("model", "tokenizer", "corpus", "options")}
        ours["tuned"] = manifest.get("tuned")
        ours["options"] = {k: v for k, v in ours["options"].items() if k != "checkpoint_seconds"}
        if not (self.folder / files.STATE).exists():
            for stale in self.folder.glob("*.checkpoint"):  # of a run that nothing describes
                stale.unlink()
        files.same_run(self.folder, ours)

    def _language(self, corpus: Corpus, every: list[list[Row]]) -> dict[str, Tensor]:
        """All that is kept of a language."""
        state = self._read(corpus, [every[number] for number in self._shard.mine(len(every))])
        if int(state["tokens"].sum()) == 0 and self._shard.of == 1:
            raise TextError(
                f"The text for {corpus.language} holds special tokens only, which never count. Give it some text."
            )
        results = {name: tensor for extra in self._extras for name, tensor in extra.result().items()}
        return {
            **state,
            **results,
            **self._attribution(corpus),
            **self._variation(corpus.language),
            "fingerprints": corpus.fingerprints,
        }

    def _read(self, corpus: Corpus, todo: list[list[Row]]) -> dict[str, Tensor]:
        """Counts and sums of some batches, from where a checkpoint says that it was stopped."""
        recorder = Recorder(self.model, self.found)
        residual = ResidualRecorder(self.model, self.found) if self.options.residual else None
        self._extras = extras(self.model, self.found, self.options, corpus)
        total = sum(segment.length for some in todo for row in some for segment in row)
        start = self._restore(corpus, recorder, residual)
        saved = time.monotonic()
        with (
            torch.inference_mode(),
            evaluating(self.model),
            recorder.attached(),
            residual.attached() if residual else _nothing(),
            all_attached(self._extras),
        ):
            for number in range(start, len(todo)):
                self._forward(batch(corpus, todo[number]), recorder, residual)
                self.progress(f"recording {corpus.language}", int(recorder.tokens.sum()), total)
                if self.resumable and time.monotonic() - saved >= self.options.checkpoint_seconds:
                    self._save(corpus, recorder, residual, number + 1)
                    saved = time.monotonic()
        if (self.resumable or self.options.until is not None) and start < len(todo):
            self._save(corpus, recorder, residual, len(todo))
        self.progress(f"recording {corpus.language}", total, total)
        return self._state(recorder, residual)

    def _attribution(self, corpus: Corpus) -> dict[str, Tensor]:
        """What the loss owes each neuron; begun anew where a run was killed in it, since it takes few tokens."""
        if self.options.attribution is None:
            return {}
        if self._shard.number > 1:  # the first shard does it for all
            nothing = torch.zeros(len(self.found.space), dtype=torch.float64)
            return {"attribution": nothing, "attributed": torch.tensor([0])}
        from lape.attribution import attribute  # needs what runs a batch, which is here
        from lape.evaluate.nll import find_head

        owed, scored = attribute(
            self.model,
            find_head(self.model),
            corpus,
            self.options,
            self.options.attribution,
            progress=lambda done, of: self.progress(f"attributing {corpus.language}", done, of),
        )
        return {"attribution": owed, "attributed": torch.tensor([scored])}

    def _variation(self, language: str) -> dict[str, Tensor]:
        return {"variation": self._moved[language].delta} if language in self._moved else {}

    def _forward(self, one: Batch, recorder: Recorder, residual: ResidualRecorder | None) -> None:
        recorder.count(one.fold)
        if residual:
            residual.weights = (one.fold.reshape(-1) >= 0).double()
        for extra in self._extras:
            extra.count(one)
        run_batch(self.model, one)

    def _state(self, recorder: Recorder, residual: ResidualRecorder | None) -> dict[str, Tensor]:
        state = recorder.state()
        if residual:
            state["residual"] = residual.total()
        return state

    def _path(self, corpus: Corpus) -> Path:
        return self.folder / f"{corpus.language}.checkpoint"

    def _save(self, corpus: Corpus, recorder: Recorder, residual: ResidualRecorder | None, done: int) -> None:
        state = self._state(recorder, residual)
        for extra in self._extras:
            state |= extra.state()
        files.write_tensors(self._path(corpus), state, {"kind": "a checkpoint", "batches": done})

    def _restore(self, corpus: Corpus, recorder: Recorder, residual: ResidualRecorder | None) -> int:
        if not self._path(corpus).exists():
            return 0
        file = files.TensorFile(self._path(corpus), "a checkpoint")
        state = {name: file.tensor(name) for name in file.names()}
        recorder.restore(state)
        if residual:
            residual.sums = state["residual"].clone()
        for extra in self._extras:
            extra.restore(state)
        return int(file.header["batches"])


def run_batch(model: Any, one: Batch) -> Tensor:
    """Run a batch through the body: (rows, tokens, width) hidden states."""
    device = next(body(model).parameters()).device
    extra = {} if one.position_ids is None else {"position_ids": one.position_ids.to(device)}
    return hidden_states(model, one.input_ids.to(device), **extra)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
