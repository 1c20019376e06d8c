"""gpt_neo to mamba2, in the order of transformers' causal-LM mapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from support.tiny import COMMON
from support.zoo.kinds import Experts, Fire, Glu, Kind, Mlp, gated, gelu, gelu_tanh, plain, relu_squared, silu

BLOCK = "model.layers.{}."
SPARSE = (1, 2)
"""Block 0 of most mixtures below is dense."""
FEED_FORWARD = BLOCK + "feed_forward."
W123 = ("w1", "w2", "w3")
LATENT: dict[str, Any] = {
    # these models expand the latent to one key and value per query head
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}


def fused(gate_up: str, down: str) -> Mlp:
    """A gated MLP whose one linear layer computes the gate half, then the up half."""
    return Mlp(gate_up, down, gate_up)


def mixture(
    prefix: str = BLOCK + "mlp.",
    shared: str = "shared_experts.",
    layers: Sequence[int] | None = None,
    shared_first: bool = False,
    glu: Glu | None = None,
) -> tuple[Mlp | Experts, ...]:
    """Routed experts and a dense shared expert beside them, in the order in which they run."""
    routed = Experts(prefix + "experts", glu=glu, layers=layers)
    dense = gated(prefix + shared, layers=layers)
    return (dense, routed) if shared_first else (routed, dense)


def clamped(limit: float, slope: float = 1.0, shift: float = 0.0) -> Glu:
    """gate · sigmoid(slope · gate) and up + shift, the gate clamped from above, up from both sides."""

    def glu(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        gate = gate.clamp(max=limit)
        return silu(slope * gate) / slope, up.clamp(-limit, limit) + shift

    return glu


def softcapped(gate_cap: float, up_cap: float) -> Glu:
    """Inkling2SoftcappedSwiGLU: only the linear factor of the SiLU is capped, and up."""

    def glu(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        activation = torch.tanh(gate / gate_cap) * gate_cap / (1 + torch.exp(-gate))
        return activation, torch.tanh(up / up_cap) * up_cap

    return glu


def longcat_experts(module: Any, fire: Fire, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """LongcatFlashExperts: the experts after the routed ones return their input."""
    enter, leave = module.gate_up_proj.detach(), module.down_proj.detach()
    result = torch.zeros_like(hidden)
    for expert in range(len(enter)):
        rows, slots = (index == expert).nonzero(as_tuple=True)
        if not len(rows):
            continue
        out = hidden[rows]
        if expert < len(leave):
            gate, up = (out @ enter[expert].T).chunk(2, dim=-1)
            out = (fire(expert, out, gate, silu, rows) * up) @ leave[expert].T
        result.index_add_(0, rows, (out * weights[rows, slots][:, None]).to(result.dtype))
    return result


def jetmoe_block(module: Any, fire: Fire, hidden: Tensor) -> Tensor:
    """JetMoeMoE: it routes by itself, sorts the rows by expert, and adds one bias to every token."""
    enter, leave = module.input_linear.weight.detach(), module.output_linear.weight.detach()
    flat = hidden.reshape(-1, hidden.shape[-1])
    _, tokens, gates, sizes, _ = module.router(flat)
    result = torch.zeros_like(flat)
    start = 0
    for expert, size in enumerate(sizes):
        rows, weights = tokens[start : start + size], gates[start : start + size]
        start += size
        if not size:
            continue
        gate, up = (flat[rows] @ enter[expert].T).chunk(2, dim=-1)
        out = (fire(expert, flat[rows], gate, silu, rows) * up) @ leave[expert].T
        result.index_add_(0, rows, out * weights[:, None])
    return result.view_as(hidden) + module.bias.detach()


def llama4_experts(module: Any, fire: Fire, routed: Tensor) -> Tensor:
    """Llama4TextExperts: every expert gets all tokens, multiplied by their router scores (0 where not routed to it)."""
    enter, leave = module.gate_up_proj.detach(), module.down_proj.detach()
    results = []
    for expert, rows in enumerate(routed.view(len(leave), -1, routed.shape[-1])):
        sent = rows.any(-1).nonzero()[:, 0]
        gate, up = (rows[sent] @ enter[expert]).chunk(2, dim=-1)
        out = torch.zeros_like(rows)
        out[sent] = (fire(expert, rows[sent], gate, silu, sent) * up) @ leave[expert]
        results.append(out)
    return torch.cat(results)


def inkling_shared(module: Any, fire: Fire, hidden: Tensor, gammas: Tensor) -> Tensor:
    """InklingSharedExperts: every token goes through all of them, weighted by what the router gave for them."""
    enter, lift, leave = (getattr(module, name).detach() for name in ("gate_proj", "up_proj", "down_proj"))
    flat = hidden.reshape(-1, hidden.shape[-1])
    gammas = gammas.reshape(-1, len(leave))
    tokens = torch.arange(len(flat))
    result = torch.zeros_like(flat, dtype=torch.float32)
    for expert in range(len(leave)):
        activation = fire(expert, flat, flat @ enter[expert].T, silu, tokens)
        result += (activation * (flat @ lift[expert].T) * gammas[:, expert, None]) @ leave[expert].T
    return result.to(hidden.dtype).view_as(hidden)


SHARED_EXPERT: dict[str, Any] = {
    "intermediate_size": ...,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 44,
    "shared_expert_intermediate_size": 20,
    "sliding_window": 16,
}
LLAMA4: dict[str, Any] = {
    "head_dim": 8,
    "intermediate_size": 20,
    "intermediate_size_mlp": 44,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_layers": list(SPARSE),
    "no_rope_layers": [1, 1, 0],
}
LLAMA4_MLPS = (
    gated(FEED_FORWARD, layers=[0]),
    Experts(FEED_FORWARD + "experts", layers=SPARSE, transposed=True, by_hand=llama4_experts),
    gated(FEED_FORWARD + "shared_expert.", layers=SPARSE),
)
LLAMA4_NOTE = (
    "Every expert runs on all tokens: the rows are multiplied by their router scores before the experts, and are 0 "
    "where a token was not routed to the expert. What the shared expert returns is then changed in place."
)
INKLING: dict[str, Any] = {
    "head_dim": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "d_rel": 4,
    "rel_extent": 16,
    "sliding_window_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
}
INKLING2: dict[str, Any] = {
    **INKLING,
    "intermediate_size": ...,
    "moe_intermediate_size": 44,
    "unpadded_vocab_size": 300,
    "mlp_gate_softcap": 2.0,
    "mlp_up_softcap": 3.0,
}
GRANITE_MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
GRANITE_SHARED = {**GRANITE_MIXTURE, "shared_intermediate_size": 20}
GRANITE_EXPERTS = Experts(BLOCK + "block_sparse_moe.experts")
GRANITE_SHARED_MLPS = (
    GRANITE_EXPERTS,
    fused(BLOCK + "shared_mlp.input_linear", BLOCK + "shared_mlp.output_linear"),
)

KINDS: dict[str, Kind] = {
    "gpt_neo": Kind(
        {
            "num_hidden_layers": ...,
            "num_attention_heads": ...,
            "num_key_value_heads": ...,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1], [["global"], 1]],
            "window_size": 4,
        },
        (plain("transformer.h.{}.mlp.", "c_fc", "c_proj", gelu_tanh),),
        note="Its blocks 0 and 2 attend to all earlier tokens, block 1 to a window.",
    ),
    "gpt_neox": Kind(mlps=(plain("gpt_neox.layers.{}.mlp.", "dense_h_to_4h", "dense_4h_to_h", gelu),)),
    "gpt_neox_japanese": Kind(
        {"intermediate_size": ..., "intermediate_multiple_size": 3},
        (plain("gpt_neox_japanese.layers.{}.mlp.", "dense_h_to_4h", "dense_4h_to_h", gelu),),
    ),
    "gpt_oss": Kind(
        {
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 16,
            "swiglu_limit": 1.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        (
            Experts(
                BLOCK + "mlp.experts",
                glu=clamped(1.0, slope=1.702, shift=1.0),
                transposed=True,
                interleaved=True,
                biases=("gate_up_proj_bias", "down_proj_bias"),
            ),
        ),
        note="The limit is 7 by default; 1 here, so that clamping happens in a tiny random model.",
    ),
    "gptj": Kind(
        {
            **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"), ...),
            **dict.fromkeys(("max_position_embeddings", "intermediate_size"), ...),
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_inner": 44,
            "n_positions": 1024,
            "rotary_dim": 4,
        },
        (plain("transformer.h.{}.mlp.", "fc_in", "fc_out", gelu_tanh),),
        note="Attention and MLP of a block both read the output of its one norm.",
    ),
    "granite": Kind(mlps=(gated(),)),
    "granite_swa": Kind({"sliding_window": 16}, (gated(),)),
    "granitemoe": Kind(GRANITE_MIXTURE, (GRANITE_EXPERTS,)),
    "granitemoe_swa": Kind({**GRANITE_SHARED, "sliding_window": 16}, GRANITE_SHARED_MLPS),
    "granitemoehybrid": Kind(
        {
            **GRANITE_SHARED,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "mamba_n_heads": 4,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
        },
        GRANITE_SHARED_MLPS,
        note="Blocks 0 and 2 hold a Mamba2 mixer (its SiLU gate is no MLP), block 1 attention; all have both MLPs.",
    ),
    "granitemoeshared": Kind(GRANITE_SHARED, GRANITE_SHARED_MLPS),
    "helium": Kind({"head_dim": 8}, (gated(),)),
    "hrm_text": Kind(
        {
            "num_key_value_heads": ...,
            "num_hidden_layers": 2,
            "head_dim": 8,
            "H_cycles": 2,
            "L_cycles": 2,
            "embedding_scale": 1.0,
        },
        tuple(
            gated(f"model.{stack}_module.layers.{layer}.mlp.", layers=[block])
            for block, (stack, layer, runs) in enumerate([("L", 0, 4), ("L", 1, 4), ("H", 0, 2), ("H", 1, 2)])
        ),
        blocks=4,
        note=(
            "Two stacks of two blocks: blocks 0 and 1 here are those of L_module, which run H_cycles · L_cycles "
            "times, 2 and 3 those of H_module, which run H_cycles times. The configuration's num_hidden_layers becomes "
            "2 · H_cycles · (L_cycles + 1). Early L cycles run under torch.no_grad(). The sigmoid gate of attention "
            "(self_attn.gate_proj) is no MLP."
        ),
    ),
    "hunyuan_v1_dense": Kind({"head_dim": 8}, (gated(),)),
    "hunyuan_v1_moe": Kind(
        {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
        mixture(shared="shared_mlp.", shared_first=True),
    ),
    "hy_v3": Kind(
        {
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        (gated(layers=[0]), *mixture(layers=SPARSE)),
    ),
    "hy_v4": Kind(
        {
            **LATENT,
            "q_lora_rank": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "index_head_dim": 16,
            "index_n_heads": 2,
            "swiglu_limit": 1.0,
        },
        (gated(layers=[0]), *mixture(layers=SPARSE, glu=clamped(1.0))),
        note=(
            "Only the routed experts are clamped (limit 10 by default; 1 here, so that clamping happens). Between the "
            "blocks a token has hc_mult hidden states; an MLP gets one, their weighted sum. Left out: the gate of "
            "attention and the hyper-connections' mixing weights."
        ),
    ),
    "hyperclovax": Kind(mlps=(gated(),)),
    "inkling2_loop_text": Kind(
        {
            **INKLING2,
            "num_hidden_layers": 4,
            "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid"],
            "n_layers_per_attn_res_block": 1,
            "loop_layer_index_start": 1,
            "loop_layer_index_end": 3,
            "loop_num_passes": 2,
            "loop_gate_rank": 8,
        },
        (Experts(BLOCK + "mlp.experts", glu=softcapped(2.0, 3.0)),),
        blocks=4,
        note=(
            "Blocks 1 and 2 run loop_num_passes times in a forward (twice here), the second time with messages of the "
            "first pass. Left out: the message gates (two linear layers, then tanh) and the attention residuals."
        ),
    ),
    "inkling2_text": Kind(
        {**INKLING2, "n_layers_per_attn_res_block": 2},
        (Experts(BLOCK + "mlp.experts", glu=softcapped(2.0, 3.0)),),
        note="Experts only. Left out: the sigmoid gate of attention and the attention residuals between the blocks.",
    ),
    "inkling_text": Kind(
        {
            **INKLING,
            "moe_intermediate_size": 20,
            "n_shared_experts": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "logits_mup_width_multiplier": 1.0,
        },
        (
            gated(layers=[0]),
            Experts(BLOCK + "mlp.experts", layers=SPARSE),
            Experts(BLOCK + "mlp.shared_experts", layers=SPARSE, gate_up="gate_proj", by_hand=inkling_shared),
        ),
        note=(
            "The shared experts are one module of 3-D parameters gate_proj, up_proj and down_proj, called with "
            "(hidden, gammas): all run on every token, and activation · up is multiplied by the "
            "router's gammas before down_proj."
        ),
    ),
    "internlm3": Kind({"head_dim": 8}, (gated(),)),
    "iquestcoder": Kind({"head_dim": 8}, (gated(),)),
    "jais2": Kind(mlps=(plain(BLOCK + "mlp.", "up_proj", "down_proj", relu_squared),)),
    "jamba": Kind(
        {
            "num_hidden_layers": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "attn_layer_period": 3,
            "attn_layer_offset": 2,
            "mamba_d_state": 8,
        },
        (gated(FEED_FORWARD, layers=[0, 2]), Experts(FEED_FORWARD + "experts", layers=[1, 3])),
        blocks=4,
        note="Block 2 holds attention, the others a Mamba mixer (its SiLU gate is no MLP).",
    ),
    "jetmoe": Kind(
        {"num_attention_heads": ..., "kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
        (Experts(BLOCK + "mlp", gate_up="input_linear.weight", down="output_linear.weight", by_hand=jetmoe_block),),
        unsupported="One module routes and runs its experts on slices of stacked weights (JetMoeParallelExperts), and no call says "
        "which row is which token's.",
    ),
    "kimi_linear": Kind(
        {
            **LATENT,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "linear_head_dim": 8,
            "linear_num_heads": 4,
        },
        (gated(layers=[0]), *mixture(layers=SPARSE)),
        note="Left out: the low-rank forget and output gates of linear attention.",
    ),
    "kolibri1": Kind(
        {
            **SHARED_EXPERT,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        mixture(),
    ),
    "laguna": Kind(
        {
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 24,
            "moe_routed_scaling_factor": 1.5,
            "sliding_window": 16,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "num_attention_heads_per_layer": [4, 2, 4],
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        (gated(layers=[0]), *mixture(layers=SPARSE, shared_first=True)),
        note="Left out: the softplus gate of attention (self_attn.g_proj).",
    ),
    "lara_mini": Kind(
        {
            **SHARED_EXPERT,
            "layer_types": ["linear_attention", "sliding_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        mixture(shared="shared_expert."),
        note="Block 0 holds a gated delta net (its SiLU gate is no MLP).",
    ),
    "lfm2": Kind(
        {"block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"]},
        (gated(FEED_FORWARD, names=W123),),
        note="The MLP calls F.silu; blocks 0 and 2 hold a gated short convolution, no MLP.",
    ),
    "lfm2_moe": Kind(
        {
            "num_dense_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "layer_types": ["conv", "full_attention", "conv"],
        },
        (gated(FEED_FORWARD, names=W123, layers=[0]), Experts(FEED_FORWARD + "experts", layers=SPARSE)),
        note="The dense MLP calls F.silu; blocks 0 and 2 hold a gated short convolution, no MLP.",
    ),
    "lfm3": Kind(
        {"head_dim": 8, "sliding_window": 16, "layer_types": ["conv", "full_attention", "sliding_attention"]},
        (gated(FEED_FORWARD, names=W123),),
        note="The MLP calls F.silu; block 0 holds a gated short convolution, no MLP.",
    ),
    "llama4": Kind(
        {
            "text_config": {
                **COMMON,
                **LLAMA4,
            },
            **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), ...),
            **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), ...),
        },
        LLAMA4_MLPS,
        note="As a causal LM only its text model is built, from text_config. " + LLAMA4_NOTE,
    ),
    "llama4_text": Kind(LLAMA4, LLAMA4_MLPS, note=LLAMA4_NOTE),
    "longcat_flash": Kind(
        {
            **LATENT,
            **dict.fromkeys(("num_hidden_layers", "intermediate_size"), ...),
            "num_layers": 3,
            "head_dim": 8,
            "q_lora_rank": 16,
            "ffn_hidden_size": 44,
            "expert_ffn_hidden_size": 20,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "moe_topk": 2,
        },
        (
            Experts(BLOCK + "mlp.experts", by_hand=longcat_experts),
            gated(BLOCK + "mlps.0."),
            gated(BLOCK + "mlps.1."),
        ),
        note=(
            "A block runs attention, the experts (whose output is added at the block's end only), a dense MLP, "
            "attention and another dense MLP. Experts 4 and 5 return their input and have no neurons, though "
            "gate_up_proj has rows for them. The configuration's num_hidden_layers is twice the number of blocks."
        ),
    ),
    "mamba": Kind(
        {"intermediate_size": ..., "state_size": 8},
        not_applicable="Its blocks hold a Mamba mixer only: there are no MLPs, hence no MLP neurons.",
    ),
    "mamba2": Kind(
        {"intermediate_size": ..., "state_size": 8, "num_heads": 4, "head_dim": 16, "n_groups": 2, "chunk_size": 8},
        not_applicable="Its blocks hold a Mamba2 mixer only: there are no MLPs, hence no MLP neurons.",
    ),
}
