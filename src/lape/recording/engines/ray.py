"""One thought, the engine of a cluster: workers of Ray, each with a model of its own, and a file for what was counted in each group of batches.

A group is named by its content: the model, the rules and the very tokens. A lost worker's groups are counted again by another, and what comes
back twice is the same file twice, so nothing is lost and nothing doubled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load as unpacked
from safetensors.torch import save as packed
from torch import Tensor

from lape import errors
from lape.data.texts import Texts
from lape.data.windows import Batch, batch
from lape.errors import FileError, LapeError, MismatchError, OptionError
from lape.extras import need
from lape.model.body import check_fits
from lape.model.find import find
from lape.model.identity import checksum, describe
from lape.model.load import ModelOptions, load, load_tokenizer
from lape.options import NotBelowZero, Options, Positive
from lape.progress import Progress, shown
from lape.recording import observers
from lape.recording.engine import GROUPS, Engine, RecordOptions, Work
from lape.recording.reader import Reader
from lape.recording.run import checked_texts, recorded
from lape.store import files, tensors
from lape.values.space import NeuronSpace
from lape.values.stats import FORMAT, ActivationStats

_KIND = "the counts of a group"


@dataclass(frozen=True)
class ClusterOptions(Options):
    """Who runs the batches of a recording."""

    engine: Literal["local", "ray"] = "local"
    """What records: this process (local), or workers of Ray, each with a model of its own (needs the extra `ray`)."""
    workers: Positive = 2
    """For ray: how many workers there are."""
    address: str | None = None
    """For ray: the cluster, such as auto or ray://head:10001. Default: this machine, started for the run."""
    worker_cpus: NotBelowZero | None = None
    """For ray: CPU cores per worker. Default: those of this machine or of the cluster, divided among the workers."""
    worker_gpus: NotBelowZero | None = None
    """For ray: GPUs per worker. Default: one where there are any."""
    group_batches: Positive = 64
    """For ray: batches that are counted in one go, and counted again where a worker is lost."""

    def needs(self, resources: dict[str, float]) -> dict[str, float]:
        """What a worker asks for, of a cluster that has `resources` (as Ray names them)."""
        shared = max(resources.get("CPU", 1) / self.workers, 0.01)
        cpus = self.worker_cpus if self.worker_cpus is not None else shared if shared < 1 else float(int(shared))
        gpus = self.worker_gpus if self.worker_gpus is not None else float(resources.get("GPU", 0) >= 1)
        return {"num_cpus": cpus, "num_gpus": gpus}


def record(
    name: str | Path,
    texts: Texts,
    options: RecordOptions,
    *,
    loading: ModelOptions | None = None,
    cluster: ClusterOptions | None = None,
    out: str | Path,
    overwrite: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: Progress = shown,
) -> ActivationStats:
    """`lape.record` by the workers of a Ray cluster; on one machine without a cluster, by several processes.

    `name`: what `lape.load` loads, found by each worker under that name. Counts are those of one process, whatever number of workers there is and
    however many of them are lost; sums agree to 1e-10. A run that was stopped goes on with the groups that are missing, with any
    number of workers. Raises what `lape.record` does, and OptionError for what only one process can record.
    """
    loading, cluster = loading or ModelOptions(), cluster or ClusterOptions()
    observers.refuse("ray", options, "until", "shard")
    files.refuse_existing(Path(out), overwrite)
    sources = checked_texts(texts)
    tokenizer = load_tokenizer(name, dtype=loading.dtype, revision=loading.revision, progress=progress)

    def engine(folder: Path) -> OnRay:
        return OnRay(str(name), loading, options, cluster, folder=folder, progress=progress)

    with connected(cluster):
        return recorded(
            engine, tokenizer, sources, options, out=out, overwrite=overwrite, about=about, progress=progress
        )


@dataclass(frozen=True)
class _Group:
    """Consecutive batches of one language."""

    key: str
    """Names it by content."""
    tokens: int
    rows: dict[str, Tensor]
    """`NUMBER.ids` int32, `NUMBER.fold` int8 and, where rows hold several documents, `NUMBER.positions` int32."""


class OnRay(Engine):
    """Counts all languages at once, group by group, and adds the groups up in their order."""

    def __init__(
        self,
        name: str,
        loading: ModelOptions,
        options: RecordOptions,
        cluster: ClusterOptions,
        *,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.options, self.progress, self._cluster, self._folder = options, progress, cluster, folder / GROUPS
        self._given = (name, loading, options)
        import ray

        self._ray = ray
        self.about = {"engine": {"name": "ray", "group_batches": cluster.group_batches}}
        self._needs = cluster.needs(self._ray.cluster_resources())
        ask = self._ray.remote(**self._needs, max_retries=-1)(_described)
        told = self._ray.get(ask.remote(*self._given))
        if isinstance(told, LapeError):
            raise told
        self.manifest, space, self.packs = told
        self.space = NeuronSpace.from_json(space)
        self._keys: dict[str, list[str]] = {}

    def begin(self, every: Mapping[str, Work]) -> None:
        """Count every group that no file holds yet."""
        self._folder.mkdir(exist_ok=True)
        todo: list[_Group] = []
        total = known = 0
        for language, work in every.items():
            groups = list(self._groups(work))
            self._keys[language] = [group.key for group in groups]
            total += sum(group.tokens for group in groups)
            for group in groups:
                if self._file(group.key) is None:
                    todo.append(group)
                else:
                    known += group.tokens
        self.progress("recording", known, total)
        for key, tokens, counted in self._counted(todo):
            files.write(self._path(key), lambda path, counted=counted: path.write_bytes(counted))  # type: ignore[misc]
            known += tokens
            self.progress("recording", known, total)

    def count(self, work: Work) -> dict[str, Tensor]:
        """Add up a language's groups."""
        total: dict[str, Tensor] = {}
        for key in self._keys[work.corpus.language]:
            group = self._file(key)
            if group is None:
                raise FileError(
                    f"{self._path(key)} is no longer there. Give the same command again: it is then counted anew."
                )
            for name in group.names():
                tensor = group.tensor(name)
                wide = tensor.long() if tensor.dtype == torch.int32 else tensor
                total[name] = total[name].add_(wide) if name in total else wide.clone()
        return total

    def _groups(self, work: Work) -> Iterator[_Group]:
        step = self._cluster.group_batches
        for at in range(0, len(work.batches), step):
            rows: dict[str, Tensor] = {}
            for number, some in enumerate(work.batches[at : at + step]):
                one = batch(work.corpus, some)
                rows[f"{number}.ids"], rows[f"{number}.fold"] = one.input_ids.int(), one.fold.to(torch.int8)
                if one.position_ids is not None:
                    rows[f"{number}.positions"] = one.position_ids.int()
            tokens = sum(int((rows[name] >= 0).sum()) for name in rows if name.endswith("fold"))
            yield _Group(self._key(rows), tokens, rows)

    def _key(self, rows: dict[str, Tensor]) -> str:
        rules = {
            "model": self.manifest["model"],
            "format": FORMAT,
            "observers": [one.name for one in observers.asked(self.options)],
        }
        digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode())
        for name in sorted(rows):
            digest.update(f"{name} {tuple(rows[name].shape)}".encode())
            digest.update(rows[name].numpy().tobytes())
        return digest.hexdigest()[:32]

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.partial"

    def _file(self, key: str) -> tensors.TensorFile | None:
        """A group's counts; None where no whole file holds them."""
        if not self._path(key).exists():
            return None
        try:
            file = tensors.TensorFile(self._path(key), _KIND)
            file.whole()
        except FileError as error:
            files.dropped(self._path(key), error)
            return None
        return file

    def _counted(self, todo: list[_Group]) -> Iterator[tuple[str, int, bytes]]:
        """Each group's key, tokens and file, as they are counted."""
        if not todo:
            return
        from ray.util import ActorPool

        make = self._ray.remote(**self._needs, max_restarts=-1, max_task_retries=-1)(Counter).remote
        expected = self.manifest["model"]["checksum"]
        workers = [make(*self._given, expected) for _ in range(min(self._cluster.workers, len(todo)))]
        asked = ((group.key, group.tokens, packed(group.rows)) for group in todo)
        for key, tokens, failed, counted in ActorPool(workers).map_unordered(_ask, asked):
            if failed:
                raise getattr(errors, failed)(counted.decode())
            yield key, tokens, counted


def _ask(worker: Any, group: tuple[str, int, bytes]) -> Any:
    return worker.count.remote(*group)


def _described(
    name: str, loading: ModelOptions, options: RecordOptions
) -> tuple[dict[str, Any], Any, bool] | LapeError:
    """By a worker, so that the process that asks needs no model: which model it is, its neurons, whether rows are packed."""
    try:
        model, tokenizer = load(name, **vars(loading))
        check_fits(model, options.row_tokens, 0)
        found = find(model)
        return describe(model, tokenizer, options.bos), found.space.to_json(), found.packs
    except LapeError as error:  # told, not raised: Ray would wrap it
        return error


class Counter:
    """A worker: loads the model once, and counts group after group."""

    def __init__(self, name: str, loading: ModelOptions, options: RecordOptions, expected: str) -> None:
        self._options = options
        self._failed: LapeError | None = None
        try:
            self._model, _ = load(name, **vars(loading))
            here = checksum(self._model)
            if here != expected:
                raise MismatchError(
                    f"A worker's {name} has checksum {here[:12]}…, but the run began with {expected[:12]}…. "
                    "Put the same weights on every machine, then give the same command again."
                )
            self._found = find(self._model)
        except LapeError as error:  # told when asked to count: a worker that fails here is started again and again
            self._failed = error

    def count(self, key: str, tokens: int, rows: bytes) -> tuple[str, int, str, bytes]:
        """A group's key, tokens and packed rows -> its key and tokens, the kind of error that stopped it or "", and a safetensors file of
        what was counted, or the error's message.
        """
        try:
            if self._failed is not None:
                raise self._failed
            return key, tokens, "", self._count(rows)
        except LapeError as error:  # Ray would wrap it, and lose what it says
            return key, tokens, type(error).__name__, str(error).encode()

    def _count(self, rows: bytes) -> bytes:
        held = unpacked(bytes(rows))
        todo = [_batch(held, number) for number in range(sum(name.endswith("ids") for name in held))]
        check_fits(self._model, self._options.row_tokens, max(int(one.input_ids.max()) for one in todo))
        reader = Reader(self._model, self._found, self._options, None)
        with reader.attached():
            for one in todo:
                reader.read(one)
        result = {name: tensor.contiguous() for name, tensor in reader.result().items()}
        result["fires"] = result["fires"].int()  # of one group: they fit
        return tensors.packed(result, {"kind": _KIND})


def _batch(held: dict[str, Tensor], number: int) -> Batch:
    ids, fold = held[f"{number}.ids"].long(), held[f"{number}.fold"].long()
    positions = held.get(f"{number}.positions")
    return Batch(ids, None if positions is None else positions.long(), torch.full_like(ids, -1), fold)


@contextmanager
def connected(cluster: ClusterOptions) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine, for as long as the block lasts. A connection that is there already is used, and stays."""
    need("ray", "The engine ray", "ray")
    import ray

    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {} if cluster.address else {"include_dashboard": False}
    try:
        ray.init(address=cluster.address, log_to_driver=False, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"No Ray cluster answers at {cluster.address}: {str(error).splitlines()[0].rstrip('.')}. Start one (ray start --head), or leave out address "
            "to use this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
