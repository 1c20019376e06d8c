"""Run texts through a model and count, neuron by neuron, how often and how strongly each fires."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lape import files
from lape.corpus import FOLDS, Batch, Corpus, batch, batches, prepare
from lape.errors import FileError, TextError
from lape.languages import tag
from lape.models import describe
from lape.options import RecordOptions, given
from lape.progress import Progress, silent
from lape.sites import Sites, body, find, hidden_states, unwrapped, watching
from lape.space import NeuronSpace
from lape.stats import ActivationStats, LanguageStats
from lape.texts import Source, Texts

COUNTED = ("residual", "bos", "row_tokens", "one_per_row")
"""Options under which tokens are counted: statistics made under different ones are not merged."""


class Recorder:
    """Counts and sums on each site's own device. Memory does not grow with the text; nothing per token leaves a layer."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        self.model, self.found = model, found
        self._fires: list[Tensor | None] = [None] * len(found.sites)
        self._sums: list[Tensor | None] = [None] * len(found.sites)
        self._weights: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._fold = torch.empty(0, dtype=torch.int64)
        self._present: list[int] = []
        self.tokens = torch.zeros(FOLDS, dtype=torch.int64)

    @contextmanager
    def attached(self) -> Iterator[Recorder]:
        """While inside, every forward that follows `count` is counted."""
        with watching(self.model, self.found.sites, self._see):
            yield self

    def count(self, fold: Tensor) -> None:
        """Say which fold each token of the next forward counts in: (rows, tokens) int64, -1 for none."""
        self._fold = fold.reshape(-1)
        self._weights.clear()
        self._present = torch.unique(self._fold[self._fold >= 0]).tolist()
        self.tokens += torch.bincount(self._fold[self._fold >= 0], minlength=FOLDS)

    def _weights_on(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """For a matrix product over tokens: (folds present, tokens) ones where a token counts in a fold, and (1, tokens) for any."""
        if device not in self._weights:
            by_fold = torch.stack([self._fold == fold for fold in self._present]) if self._present else self._fold[None, :] >= 0
            self._weights[device] = (by_fold.to(device, dtype), (self._fold[None, :] >= 0).to(device, dtype))
        return self._weights[device]

    def _see(self, k: int, activation: Tensor) -> None:
        a = activation.detach().flatten(0, -2)
        if len(a) != len(self._fold):
            raise RuntimeError(f"site {k} saw {len(a)} tokens, expected {len(self._fold)}")
        fires, sums = self._state(k, a)
        dtype = torch.float64 if a.dtype == torch.float64 else torch.float32
        by_fold, counted = self._weights_on(a.device, dtype)
        # On a CPU a block of rows stays in the cache for all four reductions; products and in-place steps were the fastest.
        step = max(16, 2**18 // a.shape[1]) if a.device.type == "cpu" else 2**13
        block_fires = torch.zeros(len(by_fold), a.shape[1], dtype=dtype, device=a.device)
        for at in range(0, len(a), step):
            x = a[at : at + step].to(dtype, copy=True)
            any_fold = counted[:, at : at + step]
            positive = x.clamp_min(0)
            sums[0] += (any_fold @ x)[0]
            sums[2] += (any_fold @ positive)[0]
            sums[1] += (any_fold @ x.square_())[0]
            block_fires.addmm_(by_fold[:, at : at + step], positive.sign_())  # 1 where the activation is above 0
        if self._present:
            fires[self._present] += block_fires.round().to(fires.device, torch.int64)

    def _state(self, k: int, a: Tensor) -> tuple[Tensor, Tensor]:
        fires, sums = self._fires[k], self._sums[k]
        if fires is None or sums is None:
            device = torch.device("cpu") if a.device.type == "mps" else a.device  # MPS has no float64
            fires = torch.zeros(FOLDS, a.shape[1], dtype=torch.int64, device=device)
            sums = torch.zeros(3, a.shape[1], dtype=torch.float64, device=device)
            self._fires[k], self._sums[k] = fires, sums
        return fires, sums

    def state(self) -> dict[str, Tensor]:
        """What was counted so far, as `LanguageStats` keeps it, on the CPU."""
        space = self.found.space
        widths = [stretch.width for stretch in space]
        fires = [torch.zeros(FOLDS, w, dtype=torch.int64) if f is None else f.cpu() for f, w in zip(self._fires, widths, strict=True)]
        sums = [torch.zeros(3, w, dtype=torch.float64) if s is None else s.cpu() for s, w in zip(self._sums, widths, strict=True)]
        total, square, positive = torch.cat(sums, 1)
        return {
            "tokens": self.tokens.clone(),
            "routed": self.tokens[:, None].repeat(1, len(widths)),
            "fires": torch.cat(fires, 1),
            "sum": total.clone(),
            "square": square.clone(),
            "positive": positive.clone(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.tokens = state["tokens"].clone()
        sums = torch.stack([state["sum"], state["square"], state["positive"]])
        for k, (site, stretch) in enumerate(zip(self.found.sites, self.found.space, strict=True)):
            part = slice(stretch.start, stretch.stop)
            weight: Any = unwrapped(self.model).get_submodule(site.down).weight
            device = torch.device("cpu") if weight.device.type in ("mps", "meta") else weight.device
            self._fires[k] = state["fires"][:, part].to(device, copy=True)
            self._sums[k] = sums[:, part].to(device, copy=True)


class ResidualRecorder:
    """Sums of the residual stream after every decoder block, over counted tokens."""

    def __init__(self, model: nn.Module, found: Sites) -> None:
        names = dict.fromkeys(_block_name(site.down, site.layer) for site in found.sites)
        self._blocks = [unwrapped(model).get_submodule(name) for name in names]
        self.sums: Tensor | None = None
        self.weights = torch.empty(0)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every forward adds."""
        handles = [block.register_forward_hook(self._hook(k)) for k, block in enumerate(self._blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, k: int) -> Callable[[nn.Module, Any, Any], None]:
        def add(_module: nn.Module, _args: Any, out: Any) -> None:
            hidden = (out if isinstance(out, Tensor) else out[0]).flatten(0, -2)
            if self.sums is None:
                self.sums = torch.zeros(len(self._blocks), hidden.shape[1], dtype=torch.float64)
            dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
            self.sums[k] += (self.weights.to(hidden.device, dtype) @ hidden.to(dtype)).cpu()

        return add


def _block_name(down: str, layer: int) -> str:
    parts = down.split(".")
    return ".".join(parts[: parts.index(str(layer)) + 1])


def record(
    model: Any,
    tokenizer: Any,
    texts: Texts,
    options: RecordOptions | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
    **changes: Any,
) -> ActivationStats:
    """Record how often and how strongly every neuron fires in each language.

    `texts`: language tag -> path, glob, folder, `hf:NAME`, several of them, or `Documents`. `options` or its fields as
    keywords: see `RecordOptions`. With `out`, the run is a folder: filled as `OUT.partial`, renamed when whole, and a run
    that was killed goes on where it was and ends with the same bits.

    Raises TextError, ModelError, FileError or MismatchError, before anything is computed where possible.
    """
    options = given(RecordOptions, options, changes)
    sources = checked_texts(texts)
    if out is not None:
        files.refuse_existing(Path(out), overwrite)
    found = find(model)
    manifest = describe(model, tokenizer)
    manifest["counting"] = {name: getattr(options, name) for name in COUNTED}
    manifest["options"] = dataclasses.asdict(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if out is None else files.partial(Path(out))
        run = _Run(model, tokenizer, found, options, folder, progress, resumable=out is not None)
        stats = run.run(sources, manifest)
        if out is None:
            return stats
        return _finish(stats, folder, Path(out), sources)


def _finish(stats: ActivationStats, folder: Path, out: Path, sources: dict[str, Source]) -> ActivationStats:
    stats.save(folder / "stats.safetensors", overwrite=True)
    files.write_json(folder / "run.json", {"verb": "record", "texts": {k: str(v) for k, v in sources.items()}, **stats.manifest})
    for leftover in folder.glob("*.checkpoint"):
        leftover.unlink()
    files.finish(folder, out)
    return ActivationStats.load(out)


def checked_texts(texts: Texts) -> dict[str, Source]:
    """Sources by standard tag. Raises TextError for a tag that is none or comes twice."""
    if not isinstance(texts, dict) or not texts:
        raise TextError("No texts were given. Expected one or more of --text TAG=PATH, for example --text fr=french.txt.")
    result: dict[str, Source] = {}
    for code, source in texts.items():
        standard = tag(code)
        if standard in result:
            raise TextError(f"{standard} is given twice. Give several paths to one language: --text {standard}=A --text {standard}=B.")
        result[standard] = source
    return result


class _Run:
    """The blocks of all languages, counted one after the other, with checkpoints where the run has a folder."""

    def __init__(
        self, model: Any, tokenizer: Any, found: Sites, options: RecordOptions, folder: Path, progress: Progress, *, resumable: bool
    ) -> None:
        self.model, self.tokenizer, self.found = model, tokenizer, found
        self.options, self.folder, self.progress, self.resumable = options, folder, progress, resumable

    def run(self, sources: dict[str, Source], manifest: dict[str, Any]) -> ActivationStats:
        fresh = not self.folder.exists()
        try:
            with files.writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            corpora = {
                language: prepare(language, source, self.tokenizer, self.options, folder=self.folder, progress=self.progress)
                for language, source in sources.items()
            }
            manifest = {**manifest, "corpus": {language: corpus.describe() for language, corpus in corpora.items()}}
            self._same_run(manifest)
        except BaseException:
            if fresh:  # nothing was counted yet: leave nothing behind
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        by_language = {language: LanguageStats(self._language(corpus)) for language, corpus in corpora.items()}
        return ActivationStats(self.found.space, by_language, manifest)

    def _same_run(self, manifest: dict[str, Any]) -> None:
        """A folder that is half full must belong to this very run."""
        if not self.resumable:
            return
        path = self.folder / "state.checkpoint"
        ours = json.loads(json.dumps({k: manifest[k] for k in ("model", "tokenizer", "corpus", "options")}))
        ours["options"].pop("checkpoint_seconds")
        if not path.exists():
            files.write_json(path, ours)
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise FileError(
                    f"{self.folder} holds a run that was stopped, with another {key}: {theirs.get(key)} there, {value} now. "
                    f"Give the same command to go on, choose another --out, or delete {self.folder}."
                )

    def _language(self, corpus: Corpus) -> dict[str, Tensor]:
        recorder = Recorder(self.model, self.found)
        residual = ResidualRecorder(self.model, self.found) if self.options.residual else None
        todo = batches(corpus, self.options, packs=self.found.packs)
        total = sum(len(some) for _, some in todo)
        start = self._restore(corpus, recorder, residual)
        saved = time.monotonic()
        with torch.inference_mode(), recorder.attached(), residual.attached() if residual else _nothing():
            for number in range(start, len(todo)):
                first, some = todo[number]
                self._forward(batch(corpus, first, some, total), recorder, residual)
                self.progress(f"recording {corpus.language}", int(recorder.tokens.sum()), len(corpus.tokens))
                if self.resumable and time.monotonic() - saved >= self.options.checkpoint_seconds:
                    self._save(corpus, recorder, residual, number + 1)
                    saved = time.monotonic()
        if self.resumable and start < len(todo):
            self._save(corpus, recorder, residual, len(todo))
        self.progress(f"recording {corpus.language}", len(corpus.tokens), len(corpus.tokens))
        return {**self._state(recorder, residual), "fingerprints": corpus.fingerprints.sort().values}

    def _forward(self, one: Batch, recorder: Recorder, residual: ResidualRecorder | None) -> None:
        recorder.count(one.fold)
        if residual:
            residual.weights = (one.fold.reshape(-1) >= 0).double()
        run_batch(self.model, one)

    def _state(self, recorder: Recorder, residual: ResidualRecorder | None) -> dict[str, Tensor]:
        state = recorder.state()
        if residual and residual.sums is not None:
            state["residual"] = residual.sums
        return state

    def _path(self, corpus: Corpus) -> Path:
        return self.folder / f"{corpus.language}.checkpoint"

    def _save(self, corpus: Corpus, recorder: Recorder, residual: ResidualRecorder | None, done: int) -> None:
        files.write_tensors(self._path(corpus), self._state(recorder, residual), {"kind": "a checkpoint", "batches": done})

    def _restore(self, corpus: Corpus, recorder: Recorder, residual: ResidualRecorder | None) -> int:
        if not self._path(corpus).exists():
            return 0
        file = files.TensorFile(self._path(corpus), "a checkpoint")
        state = {name: file.tensor(name) for name in file.names()}
        recorder.restore(state)
        if residual:
            residual.sums = state["residual"].clone()
        return int(file.header["batches"])


def run_batch(model: Any, one: Batch) -> Tensor:
    """Run a batch through the body: (rows, tokens, width) hidden states."""
    device = next(body(model).parameters()).device
    extra = {} if one.position_ids is None else {"position_ids": one.position_ids.to(device)}
    return hidden_states(model, one.input_ids.to(device), **extra)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def space_of(model: Any) -> NeuronSpace:
    """The neurons of a model."""
    return find(model).space
