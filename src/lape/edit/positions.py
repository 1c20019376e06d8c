"""Which positions of a running forward belong to the prompt, and which pick a new token."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lape.errors import ModelError, OptionError
from lape.model.body import body, unwrapped
from lape.model.hooks import Alter, Rows, held

Tokens: TypeAlias = Literal["both", "prompt", "generated"]
"""Where an edit acts: *generated* is every position whose output picks a new token, so the last one of the prompt is
among them; *prompt* is the others; *both* is all.
"""


class Positions:
    """Follows a model's forwards and tells their positions apart by what the cache holds, never by how many tokens come.

    In `generate` the prompt is what that call was given, whatever the cache held before. In a forward of one's own, an empty
    cache (or none) begins a new prompt, and all that follows on a filled cache is generated.
    """

    def __init__(self, model: nn.Module, where: Tokens, first: int | None = None, fade: float = 1.0) -> None:
        """`first`: of the generated positions only the first so many. `fade`: each of these is changed by so much of the change
        of the one before.
        """
        if where not in get_args(Tokens):
            raise OptionError(f"tokens is {where!r}. Expected {', '.join(get_args(Tokens))}.")
        if first is not None and first < 1:
            raise OptionError(f"first is {first}. Expected 1 or more.")
        if not 0 < fade <= 1:
            raise OptionError(f"fade is {fade}. Expected a share above 0, up to 1.")
        self._model = unwrapped(model)
        self._body = body(model)
        self._where, self._most, self._fade = where, first, fade
        self._last: int | Tensor = 0
        """The last prompt position, counted from the beginning of the cache, padding included."""
        self._generating = False
        self._shape = (0, 0)
        self._part: tuple[int, int] | Tensor = (0, 0)
        """The positions of this forward that are edited: from, to; or (tokens,) bool where only the device knows."""
        self._weight: float | Tensor = 1.0
        """How much of the change those positions get: one number, or (positions edited, 1)."""

    @contextmanager
    def followed(self) -> Iterator[Positions]:
        """While inside, every forward of the model is followed."""
        handles = [
            module.register_forward_pre_hook(
                partial(self._enter, inspect.signature(module.forward)), with_kwargs=True, prepend=True
            )
            for module in dict.fromkeys((self._model, self._body))  # OPT's model goes past its own body
        ]
        with held(handles), self._wrapped_generate():
            yield self

    def only(self, alter: Alter) -> Alter:
        """`alter`, at these positions alone: activations (rows, tokens, width), (rows · tokens, width), or those of some tokens."""

        def limited(activation: Tensor, which: Rows) -> Tensor:
            rows, tokens = self._shape
            if which is not None:
                weight = self._weights(activation.device)[which % tokens][:, None].to(activation.dtype)
                return torch.lerp(activation, alter(activation, which), weight)
            if activation.shape[:-1].numel() != rows * tokens:
                raise ModelError(
                    f"{activation.shape[:-1].numel()} activations came for {rows} × {tokens} tokens, so prompt and generated tokens cannot be told apart. "
                    "Edit all of them: tokens='both'."
                )
            blended = self._blend(lambda a: alter(a, None), activation.reshape(rows, tokens, -1))
            return blended.reshape(activation.shape)

        return limited

    def _weights(self, device: torch.device) -> Tensor:
        """(tokens,) how much of the change each position gets."""
        weights = torch.zeros(self._shape[1], device=device)
        if isinstance(self._part, Tensor):
            weight = self._weight[:, 0] if isinstance(self._weight, Tensor) else torch.tensor(self._weight)
            return torch.where(self._part.to(device), weight.to(device), weights)
        start, stop = self._part
        weights[start:stop] = self._weight.to(device)[:, 0] if isinstance(self._weight, Tensor) else self._weight
        return weights

    def _blend(self, alter: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        if isinstance(self._part, Tensor):
            return torch.where(self._part.to(a.device)[:, None], self._faded(alter, a), a)
        start, stop = self._part
        if start >= stop:
            return a
        if stop - start == a.shape[1]:
            return self._faded(alter, a)
        return torch.cat([a[:, :start], self._faded(alter, a[:, start:stop]), a[:, stop:]], 1)

    def _faded(self, alter: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        if isinstance(self._weight, Tensor):
            return torch.lerp(a, alter(a), self._weight.to(a.dtype).to(a.device))
        return alter(a) if self._weight == 1 else torch.lerp(a, alter(a), self._weight)

    def _bounds(self, first: Any, tokens: int) -> tuple[Any, Any]:
        """From where to where a forward is edited whose first generated position is `first`, which may lie before it."""
        start = first if self._where == "generated" else 0
        if self._where == "prompt":
            return start, first
        return start, tokens if self._most is None else first + self._most

    def _enter(
        self, signature: inspect.Signature, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        given = signature.bind_partial(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        ids = given.get("input_ids")
        shape = (given["inputs_embeds"] if ids is None else ids).shape
        self._shape = (shape[0], shape[1])
        cache = cache_in(given)
        if self._generating and cache is None and shape[1] <= self._last:
            raise ModelError(
                f"{type(self._model).__name__} generates {shape[1]} tokens at a time without a cache that can be seen, so prompt and generated tokens "
                "cannot be told apart. Edit all of them: tokens='both', without first or fade."
            )
        start = _length(cache)
        if not self._generating and int(start) == 0:
            self._last = self._shape[1] - 1
        self._mark(self._last - start, start.device if isinstance(start, Tensor) else None)

    def _mark(self, first: Any, device: torch.device | None) -> None:
        """Note which positions of this forward are edited, and how much; its first generated position is `first`."""
        tokens = self._shape[1]
        lower, upper = self._bounds(first, tokens)
        if isinstance(first, Tensor):  # a static cache: its length stays on the device
            at = torch.arange(tokens, device=device)
            self._part = (at >= lower) & (at < upper)
            self._weight = 1.0 if self._fade == 1 else (self._fade ** (at - first).clamp_min(0))[:, None]
            return
        start, stop = self._part = min(max(lower, 0), tokens), min(max(upper, 0), tokens)
        if self._fade == 1 or stop <= first + 1:
            self._weight = 1.0
        elif stop - start == 1:
            self._weight = self._fade ** max(start - first, 0)
        else:
            self._weight = (self._fade ** (torch.arange(start, stop) - first).clamp_min(0))[:, None]

    @contextmanager
    def _wrapped_generate(self) -> Iterator[None]:
        """While inside, `generate` says where its prompt ends."""
        inner = getattr(self._model, "generate", None)
        if inner is None:
            yield
            return
        mine = self._model.__dict__.get("generate")

        @wraps(inner)
        def generate(*args: Any, **kwargs: Any) -> Any:
            before = self._generating, self._last
            self._generating, self._last = True, _prompt_length(args, kwargs) - 1
            try:
                return inner(*args, **kwargs)
            finally:
                self._generating, self._last = before

        self._model.__dict__["generate"] = generate
        try:
            yield
        finally:
            if mine is None:
                self._model.__dict__.pop("generate", None)
            else:
                self._model.__dict__["generate"] = mine


_CACHES = ("cache", "past_key_values", "cache_params")
"""What transformers calls a cache: the first since 5.24, the second before, the third in state-space models before."""


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments of a forward or of `generate`, or in its output; None where there is none."""
    return next((found for name in _CACHES if (found := arguments.get(name)) is not None), None)


def _length(cache: Any) -> int | Tensor:
    """How many tokens a cache holds: a number, or a tensor on the device for a static cache."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        length: int | Tensor = cache.get_seq_length()
        return length
    return int(cache[0][0].shape[-2])


def _prompt_length(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The tokens `generate` goes on from, those already in its cache included."""
    ids = next((x for x in (*args[:1], *(kwargs.get(k) for k in ("inputs", "input_ids"))) if x is not None), None)
    embeds = kwargs.get("inputs_embeds")
    length = max([int(x.shape[1]) for x in (ids, embeds) if x is not None], default=1)
    mask = kwargs.get("attention_mask")
    if mask is not None and mask.dim() == 2:
        return max(length, int(mask.shape[1]))
    past = int(_length(cache_in(kwargs)))
    return length if length > past else past + length
