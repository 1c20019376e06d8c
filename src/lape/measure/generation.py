"""Generating answers to many prompts at once, left-padded, and one answer piece by piece."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import StoppingCriteria, TextStreamer

from lape.errors import OptionError
from lape.measure.prompts import first_of, prompt_ids
from lape.model.body import device_of, evaluating, unwrapped
from lape.options import AboveZero, NotBelowZero, Options, Positive, UpToOne

if TYPE_CHECKING:
    from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class GenerationOptions(Options):
    """How answers are generated: greedy."""

    new_tokens: Positive = 32
    """At most this many new tokens per answer."""
    repetition_penalty: AboveZero = 1.1
    """Divides the logits of tokens that occurred already (multiplies negative ones); 1 is none."""
    batch: Positive = 40
    """Prompts that run at once."""


@dataclass(frozen=True)
class SamplingOptions(GenerationOptions):
    """How answers are generated: greedy, or drawn at a temperature."""

    new_tokens: Positive = 60
    """At most this many new tokens per answer."""
    batch: Positive = 8
    """Prompts that run at once. More is faster, and takes more memory; answers stay the same but for rounding."""
    temperature: NotBelowZero = 0.0
    """Sample each token at this temperature, such as 0.7. 0: always the likeliest token (greedy)."""
    top_p: UpToOne = 1.0
    """Sample from the likeliest tokens that together have this much of the probability (nucleus sampling)."""
    seed: int = 0
    """Seed of the draws. The same seed, prompts and batch give the same answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_p < 1 and not self.temperature:
            raise OptionError(f"top_p is {self.top_p}, but nothing is drawn. Give a temperature too, such as 0.7.")


@dataclass(frozen=True)
class Written:
    """An answer."""

    text: str
    """Special tokens left out."""
    cut: bool
    """Whether it was ended by the number of new tokens, not by the model."""


def generate(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    options: GenerationOptions,
    *,
    processors: Sequence[LogitsProcessor] = (),
) -> list[str]:
    """The continuation of each prompt, special tokens left out, in the order of the prompts.

    `options`: `SamplingOptions` draw, `GenerationOptions` are greedy. `processors`: logits processors of transformers. The model writes under the edits
    that hold: inside of `edited` or `steer`, steered text.

    Example:
        >>> from lape.measure.generation import GenerationOptions, generate
        >>> options = GenerationOptions(new_tokens=3, repetition_penalty=1.0)
        >>> with lape.steer(model, neurons, to="fr", source="en", strength=5.0):
        ...     answers = generate(model, tokenizer, ["en02 en03", "en04"], options)
        >>> answers
        ['fr00 fr01 fr01', 'fr00 fr01 fr01']
    """
    return [one.text for one in write(model, tokenizer, prompts, options, processors=processors)]


@torch.inference_mode()
def write(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    options: GenerationOptions,
    *,
    processors: Sequence[LogitsProcessor] = (),
) -> list[Written]:
    """`generate`, with whether each answer was cut."""
    rows = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    answers: list[Written] = []
    with evaluating(model), _drawing(model, options):
        for at in range(0, len(rows), options.batch):
            answers += _some(model, tokenizer, rows[at : at + options.batch], options, processors)
    return answers


def _some(
    model: Any, tokenizer: Any, rows: Sequence[list[int]], options: GenerationOptions, processors: Sequence[Any]
) -> list[Written]:
    ids, mask = padded(rows, filler(tokenizer))
    new = _generated(model, tokenizer, ids, mask, options, logits_processor=list(processors))[:, ids.shape[1] :]
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    full = new.shape[1] >= options.new_tokens
    ends = torch.tensor(sorted(_ends(model, tokenizer)), device=new.device)
    cut = [full and not bool(torch.isin(row, ends).any()) for row in new]
    return [Written(str(text), by_length) for text, by_length in zip(texts, cut, strict=True)]


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens with which the model ends an answer."""
    found: set[int] = set()
    for of in (getattr(unwrapped(model), "generation_config", None), tokenizer):
        ids = getattr(of, "eos_token_id", None)
        found |= {ids} if isinstance(ids, int) else set(ids or ())
    return found


def _generated(
    model: Any, tokenizer: Any, ids: torch.Tensor, mask: torch.Tensor, options: GenerationOptions, **more: Any
) -> torch.Tensor:
    """(rows, tokens) ids of prompts and what the model writes after them."""
    device = device_of(model)
    inner: Any = unwrapped(model)
    length = ids.shape[1] + options.new_tokens
    out: torch.Tensor = inner.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        repetition_penalty=options.repetition_penalty,
        pad_token_id=filler(tokenizer),
        **(greedy(model, length) | drawn(options)),
        **more,
    )
    return out


def greedy(model: Any, length: int) -> dict[str, Any]:
    """The keywords that make `generate` greedy, up to a length in tokens, without its advice on the model's own settings."""
    config = getattr(unwrapped(model), "generation_config", None)
    sampling = ("temperature", "top_p", "top_k", "min_p", "typical_p")
    unset = {name: None for name in sampling if getattr(config, name, None) is not None}
    return {"do_sample": False, "num_beams": 1, "max_length": length, "max_new_tokens": None, **unset}


def drawn(options: GenerationOptions) -> dict[str, Any]:
    """The keywords that make `generate` draw, over those of `greedy`; none where it is to be greedy."""
    if not isinstance(options, SamplingOptions) or not options.temperature:
        return {}
    return {"do_sample": True, "temperature": options.temperature, "top_p": options.top_p, "top_k": 0}


@contextmanager
def _drawing(model: Any, options: GenerationOptions) -> Iterator[None]:
    """While inside, draws come from the options' seed; afterwards from where they came before."""
    if not isinstance(options, SamplingOptions) or not options.temperature:
        yield
        return
    device = device_of(model)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        yield


def filler(tokenizer: Any) -> int:
    """The id that pads."""
    for name in ("pad_token_id", "eos_token_id", "bos_token_id"):
        value = getattr(tokenizer, name, None)
        if value is not None:
            return int(value)
    return 0


def padded(rows: Sequence[list[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, longest) ids padded on the left, and 1 where there is a token."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[fill] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def stream(
    model: PreTrainedModel | nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    options: GenerationOptions,
    stops: Sequence[str] = (),
) -> Generator[str, None, bool]:
    """One answer, piece by piece as it is written, up to the first of `stops`; returns whether it was cut at the number of new tokens."""
    ids = torch.tensor([prompt_ids(tokenizer, prompt)])
    cut = False
    pieces: Queue[str | BaseException | None] = Queue()
    over = Event()

    class Streamer(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            pieces.put(text)
            if stream_end:
                pieces.put(None)

    class Over(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), over.is_set(), device=input_ids.device)

    def write() -> None:
        nonlocal cut
        try:
            streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
            more = {"streamer": streamer, "stopping_criteria": [Over()]}
            with torch.inference_mode(), evaluating(model), _drawing(model, options):
                out = _generated(model, tokenizer, ids, torch.ones_like(ids), options, **more)
            new = out[0, ids.shape[1] :].tolist()
            cut = len(new) >= options.new_tokens and _ends(model, tokenizer).isdisjoint(new)
        except BaseException as error:  # to be raised where the pieces are read
            pieces.put(error)

    writer = Thread(target=copy_context().run, args=(write,), daemon=True)  # it writes inside of the reader's edits
    writer.start()
    try:
        stopped = yield from before(_read(pieces), stops)
    finally:
        over.set()
        writer.join()
    return cut and not stopped


def _read(pieces: Queue[str | BaseException | None]) -> Iterator[str]:
    while (piece := pieces.get()) is not None:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


def before(pieces: Iterable[str], stops: Sequence[str]) -> Generator[str, None, bool]:
    """Text in pieces, up to the first of `stops`; what may turn out to be the beginning of one is held back. Returns whether one came."""
    held = ""
    for piece in pieces:
        held += piece
        end = first_of(held, stops)
        open_ = next(
            at for at in range(len(held) + 1) if at == len(held) or any(s.startswith(held[at:]) for s in stops)
        )
        if end < len(held) and end <= open_:
            break
        if open_:
            yield held[:open_]
            held = held[open_:]
    end = first_of(held, stops)
    if rest := held[:end]:
        yield rest
    return end < len(held)
