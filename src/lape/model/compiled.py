"""What is run as one graph that `torch.compile` makes: batches of one shape, and when making a graph pays."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lape.data.corpus import Corpus, TextOptions
from lape.data.windows import Batch, Row, at_once, longest
from lape.errors import FileError
from lape.model.body import body, device_of, hidden_states, is_shared_out, text_config, unwrapped
from lape.model.hooks import reset_compile_cache
from lape.model.site import Sites
from lape.model.timing import named, seconds
from lape.store.documents import read_json
from lape.store.files import cache, write_json

T = TypeVar("T")
_log = logging.getLogger("lape")
LEAST = {"cpu": 100_000, "cuda": 1_000_000}
"""Fewer tokens than these never win back the time that making a graph takes; nothing is timed then."""
SURELY = {"cpu": 2_000_000, "cuda": 10_000_000}
"""So many do. Shards of a run go by this alone: on whichever machine, all decide alike."""
_SHARE = 0.9
"""Of a batch's time without a graph, what is expected with one, where none of the kind was made here yet."""
_MAKING, _A_LAYER, _AGAIN = 5.0, 2.0, 7.0
"""Seconds expected then for making one, with so many more for each layer; and how many times faster it is made again from torch's cache."""
_FULL = 0.9
"""Share of the fixed shape that batches of no fixed shape must have on average, or else those are faster."""


@dataclass(frozen=True)
class Choice:
    """Whether batches run as one graph, and what speaks for that: kept with a run, and while it is stopped.

    Example:
        >>> from lape.model.compiled import Choice
        >>> Choice(False, "4,096 tokens are too few").to_json()
        {'graph': False, 'why': '4,096 tokens are too few'}
    """

    graph: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        """As `run.json` holds it."""
        return asdict(self)


class Fixed:
    """The one shape that all batches get, and how they run in it."""

    def __init__(self, model: nn.Module, found: Sites, options: TextOptions) -> None:
        self._model = model
        self.rows, self.length = _shape(options)
        self._positions = found.packs and not options.one_per_row
        self.device = device_of(model)

    def padded(self, some: Tensor, beyond: int | Tensor) -> Tensor:
        """(rows, tokens) of a batch in the one shape, with `beyond` where there is no text."""
        whole = torch.full((self.rows, self.length), beyond) if isinstance(beyond, int) else beyond.clone()
        whole[: some.shape[0], : some.shape[1]] = some
        return whole

    def arguments(self, one: Batch) -> tuple[Tensor, Tensor | None]:
        """Ids and position ids, on the model's device."""
        ids = self.padded(one.input_ids, 0).to(self.device, non_blocking=True)
        if not self._positions:
            return ids, None
        usual = torch.arange(self.length).repeat(self.rows, 1)
        positions = usual if one.position_ids is None else self.padded(one.position_ids, usual)
        return ids, positions.to(self.device, non_blocking=True)

    def forward(self, ids: Tensor, positions: Tensor | None) -> Tensor:
        """(rows, tokens, width) hidden states."""
        return hidden_states(self._model, ids, **({} if positions is None else {"position_ids": positions}))


def _shape(options: TextOptions) -> tuple[int, int]:
    return at_once(options), -(-options.row_tokens // 16) * 16


def why_not(model: nn.Module, found: Sites) -> str | None:
    """What of a model keeps it from being run as one graph, in words; None where nothing does."""
    if any(site.layout is not None for site in found.sites):
        return "the model has experts"
    if getattr(unwrapped(model), "is_quantized", False):
        return "the model is quantised"
    if is_shared_out(model):
        return "several processes hold the model"
    devices = {parameter.device for parameter in unwrapped(model).parameters()}
    if len(devices) > 1 or hasattr(unwrapped(model), "hf_device_map"):
        return "the model lies on several devices"
    device = devices.pop().type
    return None if device in LEAST else f"torch.compile is not used on {device}"


class Weighing:
    """Whether a graph pays: by the text that remains, by how long a batch takes without, and by how long graphs of this kind took before."""

    def __init__(self, what: str, model: nn.Module, found: Sites, options: TextOptions) -> None:
        """`what` is done in it, in a word that messages begin with, such as "Recording"."""
        self._what, self._model, self._layers = what, model, len(found.space.layers)
        self._device = device_of(model)
        self._shape = _shape(options)
        self._plain: float | None = None

    @cached_property
    def _path(self) -> Path:
        """Where it is kept how long graphs of this kind took on this machine."""
        kind = [self._what, _configured(self._model), str(next(body(self._model).parameters()).dtype), *self._shape]
        kind += [named(self._device), torch.get_num_threads(), torch.__version__]
        return cache() / "graphs" / f"{hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]}.json"

    def choice(
        self,
        mode: str,
        every: Callable[[], Iterable[tuple[Corpus, list[list[Row]]]]],
        tokens: int,
        unable: Callable[[], str | None],
        plain: Callable[[], object],
        *,
        alike: bool = False,
    ) -> Choice:
        """With `mode` "auto" where it pays, else "on" or "off". One line in the log where it is on and can't be made.

        `every`: batches such as those to come; `tokens` that are to come; `unable`: what keeps a graph from being made, in words; `plain`: runs one
        batch without; `alike`: go by the tokens alone, as other processes of the same run will.
        """
        if mode == "off":
            return Choice(False, "as was asked")
        least = (SURELY if alike else LEAST).get(self._device.type, math.inf)
        if mode == "auto" and tokens < least:
            return Choice(False, f"{tokens:,} tokens are too few")
        if (why := unable()) is not None:
            if mode == "on":
                _say(self._what, why)
            return Choice(False, why)
        if mode == "on":
            return Choice(True, "as was asked")
        if not _fills(self._shape, every()):
            return Choice(False, "batches have many shapes")
        if alike:
            return Choice(True, f"{tokens:,} tokens are enough")
        plain()
        self._plain = seconds(plain, self._device)
        making, share = self._known()
        rows, length = self._shape
        saved = tokens / (rows * length) * self._plain * (1 - share)
        said = f"{tokens:,} tokens, of which {rows * length:,} take {self._plain:.2g} s: a graph saves {saved:.0f} s, and making it takes {making:.0f} s"
        return Choice(saved > making, said)

    def made(self, make: Callable[[], T], run: Callable[[T], object]) -> tuple[T | None, Choice | None]:
        """What `make` makes and proves, and None; or None, and the choice to go on without: where that fails, which one line in the log says, and where
        what it gives is no faster. `run` runs the batch that was timed without.
        """
        began = time.perf_counter()
        with _kept_graphs():
            result, why = proven(self._what, make)
        if result is None:
            return None, Choice(False, why)
        making = time.perf_counter() - began
        once = seconds(lambda: run(result), self._device)
        known = self._read()
        known["again" if "making" in known else "making"] = making
        if self._plain is not None:
            known["share"] = once / self._plain
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, known)
        if self._plain is not None and once >= self._plain:
            return None, Choice(False, f"a batch takes {once:.2g} s as a graph, and {self._plain:.2g} s without")
        return result, None

    def _read(self) -> dict[str, float]:
        try:
            found = read_json(self._path, {...: float})
        except FileError:
            return {}
        return dict(found)

    def _known(self) -> tuple[float, float]:
        """Seconds that making a graph takes, and the share of a batch's time that is left with it."""
        known = self._read()
        first = known.get("making", _MAKING + _A_LAYER * self._layers)
        making = known.get("again", first / _AGAIN) if "making" in known else first
        return making, known.get("share", _SHARE)


def _configured(model: nn.Module) -> str:
    """All of a model's configuration but its name."""
    config: Any = text_config(model)
    return json.dumps(
        {k: v for k, v in config.to_dict().items() if "name_or_path" not in k}, sort_keys=True, default=str
    )


@contextmanager
def _kept_graphs() -> Iterator[None]:
    """While inside, torch keeps what it compiles where lape keeps things, unless it was told where: its own place is gone when a machine starts again."""
    name, place = "TORCHINDUCTOR_CACHE_DIR", cache() / "graphs" / "torch"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(place)
    try:
        yield
    finally:
        del os.environ[name]


def _fills(shape: tuple[int, int], every: Iterable[tuple[Corpus, list[list[Row]]]]) -> bool:
    """Whether batches have nearly the one shape as they are."""
    run = room = 0
    for corpus, some in every:
        run += sum(len(one) * longest(corpus, one) for one in some)
        room += len(some) * math.prod(shape)
    return run >= _FULL * room


def proven(what: str, make: Callable[[], T]) -> tuple[T | None, str]:
    """What `make` makes and proves, and "". None and the reason, which one line in the log says, where that fails."""
    try:
        return make(), ""
    except Exception as error:  # whatever a compiler raises
        reset_compile_cache()
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        _say(what, why)
        return None, why


def _say(what: str, why: str) -> None:
    _log.warning("%s goes on without torch.compile: %s", what, why)
