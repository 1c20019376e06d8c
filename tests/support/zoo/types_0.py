"""An example; the others follow it."""

from __future__ import annotations

from support.zoo.kinds import Experts, Kind, gated, gelu_tanh, plain

KINDS: dict[str, Kind] = {
    "llama": Kind(mlps=(gated(),)),
    "gpt2": Kind(
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 44, "n_positions": 1024},
        (plain("transformer.h.{}.mlp.", "c_fc", "c_proj", gelu_tanh),),
    ),
    "mixtral": Kind(
        {"num_local_experts": 4, "num_experts_per_tok": 2},
        (Experts("model.layers.{}.mlp.experts"),),
    ),
}
