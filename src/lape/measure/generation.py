"""Generating answers to many prompts at once, left-padded."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer

from lape.measure.prompts import first_of, prompt_ids
from lape.model.body import device_of, evaluating, unwrapped
from lape.options import positive


@dataclass(frozen=True)
class GenerationOptions:
    """How answers are generated: greedy."""

    new_tokens: int = 32
    """At most this many new tokens an answer."""
    repetition_penalty: float = 1.1
    """Divides the odds of tokens that occurred already; 1 is none."""
    batch: int = 40
    """Prompts that run at once."""

    def __post_init__(self) -> None:
        positive(self, "new_tokens", "batch")


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], options: GenerationOptions, *, processors: Sequence[Any] = ()
) -> list[str]:
    """The continuation of each prompt, special tokens left out. `processors`: logits processors of transformers."""
    rows = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    answers: list[str] = []
    with evaluating(model):
        for at in range(0, len(rows), options.batch):
            answers += _some(model, tokenizer, rows[at : at + options.batch], options, processors)
    return answers


def _some(
    model: Any, tokenizer: Any, rows: Sequence[list[int]], options: GenerationOptions, processors: Sequence[Any]
) -> list[str]:
    ids, mask = padded(rows, filler(tokenizer))
    penalty = options.repetition_penalty
    out = _written(model, tokenizer, ids, mask, options.new_tokens, penalty, logits_processor=list(processors))
    return [str(text) for text in tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)]


def _written(
    model: Any,
    tokenizer: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    new_tokens: int,
    repetition_penalty: float,
    **more: Any,
) -> torch.Tensor:
    """(rows, tokens) ids of prompts and what the model writes after them."""
    device = device_of(model)
    inner: Any = unwrapped(model)
    out: torch.Tensor = inner.generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        repetition_penalty=repetition_penalty,
        pad_token_id=filler(tokenizer),
        **greedy(model, ids.shape[1] + new_tokens),
        **more,
    )
    return out


def greedy(model: Any, length: int) -> dict[str, Any]:
    """The keywords that make `generate` greedy, up to a length in tokens, without its advice on the model's own settings."""
    config = getattr(unwrapped(model), "generation_config", None)
    sampling = ("temperature", "top_p", "top_k", "min_p", "typical_p")
    unset = {name: None for name in sampling if getattr(config, name, None) is not None}
    return {"do_sample": False, "num_beams": 1, "max_length": length, "max_new_tokens": None, **unset}


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
    model: Any, tokenizer: Any, prompt: str, new_tokens: int, repetition_penalty: float, stops: Sequence[str] = ()
) -> Generator[str, None, bool]:
    """One greedy answer, piece by piece as it is written, up to the first of `stops`; returns whether it was cut at `new_tokens`."""
    ids = torch.tensor([prompt_ids(tokenizer, prompt)])
    written = 0
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
        nonlocal written
        try:
            streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
            more = {"streamer": streamer, "stopping_criteria": [Over()]}
            with torch.inference_mode(), evaluating(model):
                out = _written(model, tokenizer, ids, torch.ones_like(ids), new_tokens, repetition_penalty, **more)
            written = out.shape[1] - ids.shape[1]
        except BaseException as error:  # to be raised where the pieces are read
            pieces.put(error)

    writer = Thread(target=copy_context().run, args=(write,), daemon=True)  # it writes inside of the reader's edits
    writer.start()
    try:
        stopped = yield from before(_read(pieces), stops)
    finally:
        over.set()
        writer.join()
    return not stopped and written >= new_tokens


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
