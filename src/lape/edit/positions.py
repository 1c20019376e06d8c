"""Which positions of a running forward belong to the prompt, and which pick a new token."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from lape.errors import ModelError, OptionError
from lape.model.body import body, unwrapped
from lape.model.editing import editing
from lape.model.hooks import Alter, Rows
from lape.model.scope import Put
from lape.model.weak_cache import WeakCache

Tokens: TypeAlias = Literal["both", "prompt", "generated"]
"""Where an edit acts: *generated* is every position whose output picks a new token, so the last one of the prompt is
among them; *prompt* is the others; *both* is all.
"""


class _Forward(threading.local):
    """The forward that a thread runs; of each thread its own."""

    generating = False
    last: int | Tensor = 0
    """The last prompt position, counted from the beginning of the cache, padding included."""
    before: int | Tensor = 0
    """That of the forward before."""
    shape: tuple[int, int] | None = None
    """Its rows and tokens; None in a forward that began before it was followed."""
    part: tuple[int, int] | Tensor = (0, 0)
    """The positions that are edited: from, to; or (tokens,) bool where only the device knows."""
    weight: float | Tensor = 1.0
    """How much of the change those positions get: one number, or (positions edited, 1)."""
    begins: Tensor | None = None
    """(rows, tokens) bool, the first position of each text; None where there is none."""


class Positions:
    """Follows a model's forwards and tells their positions apart by what the cache holds, never by how many tokens come.

    In `generate` the prompt is what that call was given, whatever the cache held before. In a forward of one's own, an empty
    cache (or none) begins a new prompt, and all that follows on a filled cache is generated.
    """

    def __init__(self, model: nn.Module, where: Tokens, first: int | None = None, fade: float = 1.0) -> None:
        """`first`: of the generated positions only the first N. `fade`: each of these is changed by so much of the change
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
        self._everywhere = (where, first, fade) == ("both", None, 1.0)
        self._now = _Forward()
        self._prompts: WeakCache[Any, int | Tensor] = WeakCache()
        """The last prompt position in each cache that was filled: texts may be read in turn, by several threads."""

    @contextmanager
    def followed(self, *, isolated: bool = False) -> Iterator[Positions]:
        """While inside, every forward of the model is followed. `isolated`: as `edited` has it."""
        handles: list[Put] = []
        for module in dict.fromkeys((self._model, self._body)):  # OPT's model goes past its own body
            enter = partial(self._enter, inspect.signature(module.forward))
            handles.append(Put(module.register_forward_pre_hook, enter, with_kwargs=True, prepend=True))
            handles.append(Put(module.register_forward_hook, self._leave))
        with editing(self._model, handles, generating=self._in_generate, isolated=isolated):
            yield self

    def only(self, alter: Alter, *, spare: bool = False) -> Alter:
        """`alter`, at these positions alone: activations (rows, tokens, width), (rows · tokens, width), or those of some tokens.

        `spare`: and not at the first position of a text.
        """

        def sparing(activation: Tensor, which: Rows) -> Tensor:
            changed, begins = limited(activation, which), self._now.begins
            if begins is None:
                return changed
            here = begins.to(activation.device).flatten()
            here = here if which is None else here[which]
            return torch.where(here.view(*activation.shape[:-1], 1), activation, changed)

        def limited(activation: Tensor, which: Rows) -> Tensor:
            if self._now.shape is None:
                return activation
            if self._everywhere:
                return alter(activation, which)
            rows, tokens = self._now.shape
            if which is not None:
                weight = self._weights(tokens, activation.device)[which % tokens][:, None].to(activation.dtype)
                return torch.lerp(activation, alter(activation, which), weight)
            if activation.shape[:-1].numel() != rows * tokens:
                raise ModelError(
                    f"{activation.shape[:-1].numel()} activations came for {rows} × {tokens} tokens, so prompt and generated tokens cannot be told apart. "
                    "Edit all of them: tokens='both'."
                )
            blended = self._blend(lambda a: alter(a, None), activation.reshape(rows, tokens, -1))
            return blended.reshape(activation.shape)

        return sparing if spare else limited

    def _weights(self, tokens: int, device: torch.device) -> Tensor:
        """(tokens,) how much of the change each position gets."""
        part, weight = self._now.part, self._now.weight
        weights = torch.zeros(tokens, device=device)
        if isinstance(part, Tensor):
            weight = weight[:, 0] if isinstance(weight, Tensor) else torch.tensor(weight)
            return torch.where(part.to(device), weight.to(device), weights)
        weights[slice(*part)] = weight.to(device)[:, 0] if isinstance(weight, Tensor) else weight
        return weights

    def _blend(self, alter: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        part = self._now.part
        if isinstance(part, Tensor):
            return torch.where(part.to(a.device)[:, None], self._faded(alter, a), a)
        start, stop = part
        if start >= stop:
            return a
        if stop - start == a.shape[1]:
            return self._faded(alter, a)
        return torch.cat([a[:, :start], self._faded(alter, a[:, start:stop]), a[:, stop:]], 1)

    def _faded(self, alter: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        weight = self._now.weight
        if isinstance(weight, Tensor):
            return torch.lerp(a, alter(a), weight.to(a.dtype).to(a.device))
        return alter(a) if weight == 1 else torch.lerp(a, alter(a), weight)

    def _bounds(self, first: Any, tokens: int) -> tuple[Any, Any]:
        """From where to where a forward is edited whose first generated position is `first`, which may lie before it."""
        start = first if self._where == "generated" else 0
        if self._where == "prompt":
            return start, first
        return start, tokens if self._most is None else first + self._most

    def _enter(
        self, signature: inspect.Signature, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        given = signature.bind_partial(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        ids = given.get("input_ids")
        shape = (given["inputs_embeds"] if ids is None else ids).shape
        now = self._now
        now.shape = shape[0], shape[1]
        cache = cache_in(given)
        goes_on = given.get("state") is not None or (now.generating and shape[1] <= now.last)  # RWKV has a state
        unseen = cache is None and goes_on
        if unseen and now.generating and not self._everywhere:
            raise ModelError(
                f"{type(self._model).__name__} generates {shape[1]} tokens at a time without a cache that can be seen, so prompt and generated tokens "
                "cannot be told apart. Edit all of them: tokens='both', without first or fade."
            )
        start = _length(cache)
        if not now.generating:
            now.last = self._prompt_of(cache) if int(start) else shape[1] - 1
        now.begins = None if unseen else _begins(given, start, now.shape)
        self._mark(shape[1], now.last - start, start.device if isinstance(start, Tensor) else None)
        if module is self._model or not isinstance(kwargs.get(_KEEP), int):
            return None
        return args, {**kwargs, _KEEP: 0}  # else Gemma 4's last layers run on some of the tokens only

    def _leave(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self._now.before = self._now.last
        cache = cache_in(out) if isinstance(out, Mapping) else None
        if cache is not None:
            with suppress(TypeError):  # not every kind can be told apart from others
                self._prompts.set(cache, self._now.last)

    def _prompt_of(self, cache: Any) -> int | Tensor:
        """The last prompt position in a cache that was filled; of one that is not known, that of the forward before."""
        with suppress(TypeError):
            known = self._prompts.get(cache)
            return self._now.before if known is None else known
        return self._now.before

    def _mark(self, tokens: int, first: Any, device: torch.device | None) -> None:
        """Note which positions of a forward are edited, and how much; its first generated position is `first`."""
        now = self._now
        lower, upper = self._bounds(first, tokens)
        if isinstance(first, Tensor):  # a static cache: its length stays on the device
            at = torch.arange(tokens, device=device)
            now.part = (at >= lower) & (at < upper)
            now.weight = 1.0 if self._fade == 1 else (self._fade ** (at - first).clamp_min(0))[:, None]
            return
        start, stop = now.part = min(max(lower, 0), tokens), min(max(upper, 0), tokens)
        if self._fade == 1 or stop <= first + 1:
            now.weight = 1.0
        elif stop - start == 1:
            now.weight = self._fade ** max(start - first, 0)
        else:
            now.weight = (self._fade ** (torch.arange(start, stop) - first).clamp_min(0))[:, None]

    @contextmanager
    def _in_generate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
        """A call of `generate`, whose arguments say where its prompt ends."""
        now = self._now
        before = now.generating, now.last
        now.generating, now.last = True, _prompt_length(args, kwargs) - 1
        try:
            yield
        finally:
            now.generating, now.last = before


def _begins(given: Mapping[str, Any], start: int | Tensor, shape: tuple[int, int]) -> Tensor | None:
    """Where texts begin in a forward, whose first position comes after `start` others: where position ids begin again, where padding ends, or
    at the beginning of the cache.
    """
    positions, mask = given.get("position_ids"), given.get("attention_mask")
    mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
    if isinstance(positions, Tensor) and positions.shape[-2:] in (shape, (1, shape[1])) and positions.dim() == 2:
        begins = (positions == 0).expand(shape)
        if mask is not None:  # padding may have any number
            begins = begins & mask[:, -shape[1] :].bool()
    elif mask is not None and not isinstance(start, Tensor):
        begins = ((mask.cumsum(1) == 1) & mask.bool())[:, start : start + shape[1]]
    else:
        at = torch.arange(shape[1], device=start.device if isinstance(start, Tensor) else None)
        begins = (at + start == 0).expand(shape)
    return begins if isinstance(start, Tensor) or bool(begins.any()) else None


_KEEP = "logits_to_keep"
_CACHES = ("cache", "past_key_values", "cache_params")
"""What transformers calls a cache: the first since 5.24, the second before, the third in state-space models before."""


def cache_in(arguments: Mapping[str, Any]) -> Any:
    """The cache among the arguments of a forward or of `generate`, or in its output; None where there is none."""
    return next((value for name, value in arguments.items() if name in _CACHES and value is not None), None)


def _length(cache: Any) -> int | Tensor:
    """How many tokens a cache holds: a number, or a tensor on the device for a static cache."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        length: int | Tensor = cache.get_seq_length()
        return length
    if hasattr(cache, "seqlen_offset"):  # xLSTM's
        return int(cache.seqlen_offset)
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
