"""What recording and measuring a model would take: memory, arithmetic and time, from its configuration and a short measured probe."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lape.data.corpus import FOLDS
from lape.data.windows import Batch
from lape.errors import OptionError
from lape.model.body import hidden_states, text_config, tiny_ids
from lape.model.find import find
from lape.model.load import chosen_device
from lape.model.loss import find_head
from lape.model.skeleton import Skeleton, free_memory, parameters_of, skeleton
from lape.model.timing import named, seconds
from lape.options import Tokens, given, positive
from lape.recording.engine import RecordOptions
from lape.recording.observers import quantities
from lape.recording.reader import Reader

_FEWEST = 2
_ROUNDS, _LONG = 3, 5.0
"""Times a piece of work is timed, but once where it takes longer than so many seconds."""
_MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the square matrices whose product measures a device's peak."""


@dataclass(frozen=True)
class PlanOptions:
    """What is planned, and for which machine."""

    languages: int = 7
    """How many languages."""
    tokens: Tokens = 1_000_000
    """Tokens recorded of each language."""
    evaluate: Tokens = 10_000
    """Tokens of each language on which perplexity is measured."""
    draws: int = 20
    """Draws of each control."""
    elsewhere: int = 4
    """How many of the matched draws are measured on the other languages too."""
    batch_tokens: int = 2048
    """Tokens that run through the model at once."""
    gpus: int = 0
    """How many GPUs work at once. Default: the device that lape would use here."""
    gpu_memory: float = 80.0
    """Memory of one GPU, in GiB."""
    tflops: float | None = None
    """Speed of one GPU, in 10¹² FLOP per second in the model's number format, where it is not measured here."""
    share: float = 0.5
    """The share of `tflops` that recording reaches."""

    def __post_init__(self) -> None:
        positive(self, "languages", "tokens", "evaluate", "draws", "batch_tokens")
        if self.gpus < 0 or self.gpu_memory <= 0 or (self.tflops is not None and self.tflops <= 0):
            raise OptionError("gpus, gpu_memory and tflops must be above 0, such as 8, 80 and 989.")
        if not 0 < self.share <= 1:
            raise OptionError(f"share is {self.share}. Expected a share above 0 and up to 1, such as 0.5.")


@dataclass(frozen=True)
class Probe:
    """What was measured on this machine, on a few layers with random weights."""

    device: str
    layers: int
    peak: float
    """FLOP per second of a matrix product in the model's number format."""
    bare: float
    """Seconds per token of one layer."""
    recording: float
    """The same while counts and sums are recorded."""
    measuring: float = 0.0
    """The same in batches of the evaluation text, where those are smaller."""
    head: float = 0.0
    """Seconds per token of the LM head and the loss of what it says."""

    def share(self, flops: float) -> float:
        """Of the peak, while recording, where one layer does `flops` a token."""
        return flops / self.recording / self.peak


@dataclass(frozen=True)
class Plan:
    """Sizes in bytes, arithmetic in FLOP, times in seconds of all devices together working.

    Example:
        >>> from lape.recording.plan import plan
        >>> planned = plan("model", languages=4, tokens=10**9, gpus=8, tflops=989)
        >>> planned.record_tokens, planned.passes
        (4000000000, 228)
        >>> f"{planned.record_seconds:.1f} s, then {1000 * planned.evaluate_seconds:.1f} ms"
        '1.4 s, then 0.8 ms'
    """

    layers: int
    parameters: int
    neurons: int
    flops: float
    """A token through the body."""
    head_flops: float
    """A token through the LM head."""
    weights: int
    """As they lie in 16 bits a parameter."""
    statistics: int
    """Counts and sums of one language, as they lie beside the weights and in the file."""
    languages: int
    record_tokens: int
    """All languages together."""
    passes: int
    """Of one language's evaluation text through the model: (languages + 1 + controls) × languages, each control on its own language."""
    evaluate_tokens: int
    probe: Probe | None
    devices: int
    """That work at once."""
    a_copy: int
    """Devices that one copy of the weights needs."""
    speed: float
    """FLOP per second of one device: as measured, or as follows from what was given."""

    @property
    def record_seconds(self) -> float:
        """Recording all languages."""
        return self.record_tokens * self.flops / (self.speed * self.devices)

    @property
    def evaluate_seconds(self) -> float:
        """Measuring perplexity with each language's neurons off."""
        if self.probe is None:
            return self.evaluate_tokens * (self.flops + self.head_flops) / (self.speed * self.devices)
        return self.evaluate_tokens * (self.layers * self.probe.measuring + self.probe.head) / self.devices


def plan(
    name: str | Path,
    *,
    languages: int = 7,
    tokens: Tokens = 1_000_000,
    evaluate: Tokens = 10_000,
    draws: int = 20,
    elsewhere: int = 4,
    batch_tokens: int = 2048,
    gpus: int = 0,
    gpu_memory: float = 80.0,
    tflops: float | None = None,
    share: float = 0.5,
    revision: str | None = None,
) -> Plan:
    """Plan the work on a model by its Hugging Face id, folder or config.json; no weights are needed or read.

    A few layers with random weights are made and timed; the rest follows by their number. Raises OptionError where GPUs are
    planned on a machine without one and their speed is not given, ModelError where there is no model at `name`.

    Example:
        >>> from lape.recording.plan import plan
        >>> planned = plan("model", languages=4, gpus=1, tflops=989)
        >>> planned.layers, planned.neurons, planned.a_copy
        (2, 2800, 1)
    """
    options = given(PlanOptions, locals())
    device = chosen_device()
    if options.gpus and device.type == "cpu" and options.tflops is None:
        raise OptionError(
            "There is no GPU here whose speed could be measured. Say what one reaches: tflops=989, for instance, is an H100 in bfloat16."
        )
    parameters, few = parameters_of(name, revision), skeleton(name, revision, _FEWEST)
    neurons = len(find(few.model).space) * few.of // few.layers
    per_layer, head = _flops(few)
    probe = None if options.tflops else _probe(few, options, device)
    speed = per_layer / probe.recording if probe else (options.tflops or 0) * 1e12 * options.share
    weights = 2 * parameters
    room = options.gpu_memory * 2**30 if options.gpus else _room(device)
    kept = quantities(RecordOptions()).values()
    elsewhere = min(options.draws, options.elsewhere) * (languages - 1)
    passes = languages * (languages + 1 + 2 * options.draws + elsewhere)
    return Plan(
        layers=few.of,
        parameters=parameters,
        neurons=neurons,
        flops=per_layer * few.of,
        head_flops=head,
        weights=weights,
        statistics=neurons * sum(8 * (FOLDS if "folds" in one.axes else 1) for one in kept if "neurons" in one.axes),
        languages=languages,
        record_tokens=languages * options.tokens,
        passes=passes,
        evaluate_tokens=passes * options.evaluate,
        probe=probe,
        devices=max(options.gpus, 1),
        a_copy=max(1, -(-int(weights * 1.15) // int(room))),
        speed=speed,
    )


def _flops(few: Skeleton) -> tuple[float, float]:
    """Of one token: through one layer of the body, and through the LM head."""
    ids = _ids(few.model, 512)
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the CPU's fused attention
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        hidden_states(few.model, ids)
    config = text_config(few.model)
    return counter.get_total_flops() / ids.numel() / few.layers, 2.0 * config.hidden_size * config.vocab_size


def _ids(model: Any, tokens: int) -> torch.Tensor:
    """Rows of 512 tokens, or as long as the model takes."""
    length = min(512, int(getattr(text_config(model), "max_position_embeddings", None) or 512))
    return tiny_ids(model, max(1, tokens // length), length)


def _probe(few: Skeleton, options: PlanOptions, device: torch.device) -> Probe:
    few.model.to(device)
    ids = _ids(few.model, options.batch_tokens)
    fewer = _ids(few.model, min(options.batch_tokens, options.evaluate))
    reader = Reader(few.model, find(few.model), RecordOptions(), None)
    none = torch.zeros_like(ids, device="cpu")
    head = find_head(few.model)
    with torch.inference_mode():
        bare = _median(lambda: hidden_states(few.model, ids), device)
        measuring = _median(lambda: hidden_states(few.model, fewer), device)
        with reader.attached():
            ours = _median(lambda: reader.read(Batch(ids, None, none, none)), device)
        hidden = hidden_states(few.model, fewer).flatten(0, 1)
        loss = _median(lambda: head.nll(hidden, fewer.flatten()), device)
        side = _MATRIX.get(device.type, 2048)
        a, b = (torch.randn(side, side, device=device, dtype=few.model.dtype) for _ in range(2))
        product = _median(lambda: a @ b, device)
    each, other = ids.numel() * few.layers, fewer.numel()
    return Probe(
        named(device),
        few.layers,
        2 * side**3 / product,
        bare / each,
        ours / each,
        measuring / other / few.layers,
        loss / other,
    )


def _median(work: Callable[[], Any], device: torch.device) -> float:
    """The median of some rounds, after one that warms up."""
    rounds: list[float] = []
    seconds(work, device)
    while len(rounds) < _ROUNDS and max(rounds, default=0) <= _LONG:
        rounds.append(seconds(work, device))
    return statistics.median(rounds)


def _room(device: torch.device) -> int:
    """Bytes that a model may take here."""
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError, AttributeError):
            return int(torch.cuda.mem_get_info()[1])
    return free_memory()
