"""A recording in a folder: all languages, one after the other, by any engine, going on where it was stopped."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from lape.data.corpus import prepare_all
from lape.data.languages import tagged
from lape.data.texts import Source, Texts, check_source, listed
from lape.data.windows import batches
from lape.detect.stability import doubling, steadiness
from lape.errors import FileError, TextError
from lape.progress import Progress
from lape.recording.engine import GROUPS, RECORDED, Engine, RecordOptions, Work, part_of
from lape.recording.observers import quantities
from lape.recording.partials import keep, kept
from lape.store import files
from lape.store.documents import read_json
from lape.store.lazy import FromFile
from lape.store.lock import Lock
from lape.store.tensors import TensorFile
from lape.values.quantity import Quantity
from lape.values.same import lasting
from lape.values.stats import FORMAT, ActivationStats, LanguageStats

COUNTED = ("residual", "bos", "row_tokens", "one_per_row")
"""Options under which tokens are counted: statistics made under different ones are not merged."""


def recorded(
    engine: Callable[[Path], Engine],
    tokenizer: Any,
    sources: dict[str, Source],
    options: RecordOptions,
    *,
    out: str | Path | None,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: Progress,
) -> ActivationStats:
    """`record` by any engine, which is given the run's folder."""
    with tempfile.TemporaryDirectory() as temporary, Lock(Path(out)) if out is not None else nullcontext():
        if out is not None:
            files.refuse_existing(Path(out), overwrite)  # another process may have made it since
        folder = Path(temporary) if out is None else files.partial(Path(out))
        counting = engine(folder)
        run = _Run(counting, tokenizer, options, folder, progress, resumable=out is not None)
        stats = run.run(sources)
        if out is None:
            return stats
        return _finish(stats, folder, Path(out), sources, about or {})


def _finish(
    stats: ActivationStats, folder: Path, out: Path, sources: dict[str, Source], about: Mapping[str, Any]
) -> ActivationStats:
    stats.save(folder / "stats.safetensors", overwrite=True)
    files.write_json(folder / "run.json", {"verb": "record", "texts": listed(sources), **stats.manifest, **about})
    kept = {"stats.safetensors", "run.json"}
    for leftover in sorted(
        folder.iterdir(), key=lambda path: path.name == files.STATE
    ):  # the state last: see _same_run
        if leftover.name not in kept:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    files.finish(folder, out)
    return ActivationStats.load(out)


def already(out: Path) -> list[str]:
    """The languages that a run which was stopped has a file of: they are not recorded again where that is whole and of the same run."""
    return sorted(path.stem for path in files.partial(out).glob("*.recorded"))


def checked_texts(texts: Texts) -> dict[str, Source]:
    """Sources by standard tag. Raises TextError for a tag that is none or comes twice, and for a path with nothing at it."""
    if not isinstance(texts, dict) or not texts:
        raise TextError(
            "No texts were given. Expected a path for each language, for example texts={'fr': 'french.txt'}."
        )
    twice = "{tag} is given twice. Give it once, with all its paths."
    result: dict[str, Source] = {}
    for standard, source in tagged(texts, twice):
        check_source(source)
        result[standard] = source
    return result


class _Run:
    """All languages, one after the other, in a folder."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        options: RecordOptions,
        folder: Path,
        progress: Progress,
        *,
        resumable: bool,
    ) -> None:
        self.engine, self.tokenizer, self.options = engine, tokenizer, options
        self.folder, self.progress, self.resumable = folder, progress, resumable
        self._shard = part_of(options)

    def run(self, sources: dict[str, Source]) -> ActivationStats:
        fresh = not self.folder.exists()
        try:
            return self._run(sources)
        except BaseException:
            if fresh and not self._begun():
                shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _run(self, sources: dict[str, Source]) -> ActivationStats:
        with files.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        corpora = prepare_all(sources, self.tokenizer, self.options, folder=self.folder, progress=self.progress)
        until = self.options.until
        todo = {}
        for k, corpus in corpora.items():
            every = batches(corpus, self.options, packs=self.engine.packs, mixed=until is not None)
            todo[k] = Work(corpus, every, every)
        known = quantities(self.options, tuned="tuned" in self.engine.manifest)
        manifest = {
            **self.engine.manifest,
            "counting": {name: getattr(self.options, name) for name in COUNTED},
            "quantities": {name: one.to_json() for name, one in known.items()},
            "options": dataclasses.asdict(self.options),
            "corpus": {k: self._described(work) for k, work in todo.items()},
        }
        todo = {
            k: dataclasses.replace(one, batches=[one.every[number] for number in self._shard.mine(len(one.every))])
            for k, one in todo.items()
        }
        self._same_run(manifest)
        self.engine.begin(todo)
        if until is not None:
            todo, manifest["until"] = self._until(until, todo)
        by_language = {k: self._kept(work, known) for k, work in todo.items()}
        return ActivationStats(self.engine.space, by_language, manifest)

    def _until(self, mark: float, every: dict[str, Work]) -> tuple[dict[str, Work], dict[str, Any]]:
        """Record all languages in turn, to doubling sizes, until their sets come out alike from halves of the text."""
        until = self.folder / "until.checkpoint"
        curve = _curve(until)
        longest = max(len(work.batches) for work in every.values())
        for done, size in enumerate(doubling(longest, self.options.batch_tokens)):
            todo = {
                k: dataclasses.replace(one, batches=one.every[: size // self.options.batch_tokens])
                for k, one in every.items()
            }
            if done == len(curve):
                counted = {
                    k: self._held(work, "so far.checkpoint", self.engine.count(work)) for k, work in todo.items()
                }
                curve.append(steadiness(ActivationStats(self.engine.space, counted, {}), self.progress))
                files.write_json(until, curve)
            if (curve[done]["median"] or 0) >= mark:
                break
        return todo, {"mark": mark, "reached": (curve[-1]["median"] or 0) >= mark, "curve": curve}

    def _held(self, work: Work, name: str, tensors: dict[str, Tensor]) -> LanguageStats:
        """In a file, read when asked for, so that one language is in memory at a time."""
        path = self.folder / f"{work.corpus.language}.{name}"
        keep(path, RECORDED, tensors, len(work.batches))
        return LanguageStats(FromFile(TensorFile(path, RECORDED)))

    def _kept(self, work: Work, known: Mapping[str, Quantity]) -> LanguageStats:
        """All of a language."""
        done = self.folder / f"{work.corpus.language}.recorded"
        found = kept(done, RECORDED, work, self.engine.space, known, known) if self.resumable else None
        if found is not None and found[0] == len(work.batches):
            return LanguageStats(found[1])
        counted = self.engine.count(work)
        if int(counted["tokens"].sum()) == 0 and self._shard.of == 1:
            raise TextError(
                f"The text for {work.corpus.language} holds special tokens only, which never count. Give it some text."
            )
        whole = {**counted, **self.engine.rest(work.corpus), "fingerprints": work.corpus.fingerprints}
        return self._held(work, "recorded", whole) if self.resumable else LanguageStats(whole)

    def _described(self, work: Work) -> dict[str, Any]:
        return {**work.corpus.describe(), **self._shard.describe(len(work.batches), self.options.batch_tokens)}

    def _begun(self) -> bool:
        """Whether the folder holds anything worth going on from."""
        return any(path.name != files.STATE for path in self._stopped())

    def _stopped(self) -> list[Path]:
        """What a run that was stopped left in the folder."""
        kinds = ("*.checkpoint", "*.recorded", f"{GROUPS}/*.partial")
        return [path for kind in kinds for path in self.folder.glob(kind)]

    def _same_run(self, manifest: dict[str, Any]) -> None:
        """A folder that is half full must belong to this very run."""
        if not self.resumable:
            return
        ours = {k: manifest[k] for k in ("model", "tokenizer", "corpus", "options")} | self.engine.about
        ours["format"] = FORMAT
        ours["options"] = {k: v for k, v in ours["options"].items() if k != "checkpoint_seconds"}
        state = files.state_of(self.folder)
        if state is not None and (began := state.get("format", 1)) != FORMAT:
            raise FileError(
                f"{self.folder} holds a recording of format {began} that was stopped, and this version of lape records format {FORMAT}. "
                f"Finish it with the version that began it, choose another place, or delete {self.folder}."
            )
        if state is None:
            for stale in self._stopped():  # of a run that nothing describes
                stale.unlink()
        files.same_run(self.folder, lasting(ours))


def _curve(path: Path) -> list[dict[str, Any]]:
    """How steady the sets were at each size so far."""
    if not path.exists():
        return []
    try:
        curve: list[dict[str, Any]] = read_json(path, [{"median": float | None}])
    except FileError as error:
        files.dropped(path, error)
        return []
    return curve
