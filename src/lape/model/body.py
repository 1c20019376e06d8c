"""A Hugging Face model's parts and modes: its body, blocks and configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lape.data.windows import Batch
from lape.errors import ModelError, OptionError
from lape.model.site import Sites


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself where `torch.compile` or peft wrapped it."""
    inner = getattr(model, "_orig_mod", model)
    base: Any = getattr(inner, "get_base_model", None)  # adapters of peft: their layers act within the model itself
    inner = inner if base is None else base()
    return inner if isinstance(inner, nn.Module) else model


def body(model: nn.Module) -> nn.Module:
    """The part of a causal language model below its LM head."""
    base = getattr(unwrapped(model), "base_model", None)
    return base if isinstance(base, nn.Module) else unwrapped(model)


def device_of(model: nn.Module) -> torch.device:
    """Where ids are to be: the device on which the body begins."""
    return next(body(model).parameters()).device


def hidden_states(model: nn.Module, input_ids: Tensor, **kwargs: Any) -> Tensor:
    """Run the body alone: (batch, tokens) ids -> (batch, tokens, width) last hidden states, LM head not run."""
    out = body(model)(input_ids=input_ids, use_cache=False, **kwargs)
    hidden: Tensor = out.last_hidden_state if hasattr(out, "last_hidden_state") else out[0]
    return hidden


def blocks(model: nn.Module, found: Sites) -> list[nn.Module]:
    """The decoder blocks that hold neurons, in order. Raises ModelError where one of them runs more than once in a forward."""
    by_layer = {site.layer: site.block for site in found.sites}
    if len(set(by_layer.values())) < len(by_layer):
        raise ModelError(
            f"Decoder blocks of {type(unwrapped(model)).__name__} run more than once in a forward, so their residual stream is not recorded."
        )
    return [unwrapped(model).get_submodule(name) for name in by_layer.values()]


def tiny_ids(model: nn.Module, rows: int = 2, length: int = 12) -> Tensor:
    """A few fixed pseudo-random token ids, (rows, length), on the model's device."""
    vocabulary = text_config(model).vocab_size
    generator = torch.Generator().manual_seed(20240226)
    ids = torch.randint(vocabulary // 8, vocabulary, (rows, length), generator=generator)
    return ids.to(device_of(model))


def is_shared_out(model: nn.Module) -> bool:
    """Whether several processes hold a model's weights together."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def text_config(model: nn.Module) -> Any:
    """The configuration of the text model."""
    config: Any = getattr(unwrapped(model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(
            f"{type(model).__name__} is not a Hugging Face model: it has no config. Load one with lape.load(...)."
        )
    return config.get_text_config(decoder=True)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While inside, no dropout; on leaving, every part is in the mode it was in."""
    training = [module for module in unwrapped(model).modules() if module.training]
    unwrapped(model).eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_fits(model: nn.Module, row_tokens: int, largest_id: int) -> None:
    """Refuse rows longer than the model's positions, and ids of another vocabulary."""
    config = text_config(model)
    most = getattr(config, "max_position_embeddings", None)
    if isinstance(most, int) and row_tokens > most:
        raise OptionError(
            f"Rows of {row_tokens} tokens are longer than the model's {most} positions. Give row_tokens={most}."
        )
    embedding: Any = getattr(unwrapped(model), "get_input_embeddings", lambda: None)()
    size = getattr(embedding, "num_embeddings", None)
    if isinstance(size, int) and largest_id >= size:
        raise ModelError(
            f"The tokenizer gives id {largest_id}, but the model has {size} entries: they do not belong together."
        )


@contextmanager
def each_row_alone(model: nn.Module) -> Iterator[None]:
    """While inside, LLM.int8 quantises every row by itself, so that a row's values say what it depends on.

    Otherwise a column that is large in one row of a batch is left in half precision in all of them (Dettmers et al., 2022, section 3.2).
    """
    held: list[Any] = [getattr(module, "state", None) for module in model.modules()]
    states = [state for state in held if hasattr(state, "has_fp16_weights")]
    thresholds = [state.threshold for state in states]
    for state in states:
        state.threshold = 0.0
    try:
        yield
    finally:
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold


@contextmanager
def present(module: nn.Module) -> Iterator[None]:
    """While inside, a module's own weights are there, also where accelerate keeps them elsewhere until they are used."""
    hook: Any = getattr(module, "_hf_hook", None)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)


def run_batch(model: Any, one: Batch) -> Tensor:
    """Run a batch through the body: (rows, tokens, width) hidden states."""
    device = device_of(model)
    extra = {} if one.position_ids is None else {"position_ids": one.position_ids.to(device)}
    return hidden_states(model, one.input_ids.to(device), **extra)
