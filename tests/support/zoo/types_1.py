"""Model types afmoe to doge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from support.zoo.kinds import (
    LLAMA,
    Experts,
    Fire,
    Kind,
    Mlp,
    Own,
    gated,
    gelu,
    gelu_tanh,
    plain,
    relu,
    relu_squared,
    silu,
)

SPARSE = (1, 2)
ROUTED = LLAMA + "experts"
SHARED = LLAMA + "shared_experts."
DENSE_FIRST = {"mlp_layer_types": ["dense", "sparse", "sparse"]}

LATENT = {  # multi-head latent attention; its code wants as many key heads as query heads
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
INDEXER = {"index_head_dim": 16, "index_n_heads": 2}  # with a small index_topk, ties would depend on the length
DEEPSEEK = {
    **LATENT,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
}
GROUPS = {"n_group": 2, "topk_group": 1}
DEEPSEEK_MLPS = (gated(layers=(0,)), Experts(ROUTED, layers=SPARSE), gated(SHARED, layers=SPARSE))

WINDOWS = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 16,
}

BART = {"d_model": 32, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 44}
BART_LAYER = "model.decoder.layers.{}."
BART_NOTE = "The class runs the decoder alone; the cross-attention of its blocks is there, but never runs."

ENCODER_NOTE = "The head's transform (dense, activation, norm, decoder) belongs to no block, so it is left out."


def bert(prefix: str, function: Callable[[Tensor], Tensor] = gelu) -> tuple[Mlp, ...]:
    return (plain(prefix + ".layer.{}.", "intermediate.dense", "output.dense", function),)


def xielu_mlp(module: Any, fire: Fire, hidden: Tensor) -> Tensor:
    """Each block's activation function has parameters of its own, which `Mlp.function` cannot reach."""
    x = hidden.flatten(0, -2)
    z = x @ module.up_proj.weight.detach().T
    positive = softplus(module.act_fn.alpha_p.detach())
    negative = 0.5 + softplus(module.act_fn.alpha_n.detach())

    def xielu(z: Tensor) -> Tensor:
        below = (torch.expm1(z.clamp(max=-1e-6)) - z) * negative
        return torch.where(z > 0, positive * z**2, below) + 0.5 * z

    a = fire(None, x, z, xielu, torch.arange(len(x)))
    return (a @ module.down_proj.weight.detach().T).view_as(hidden)


def normed_mlp(module: Any, fire: Fire, hidden: Tensor) -> Tensor:
    """The product of activation and up projection is normalised before the down projection."""
    x = hidden.flatten(0, -2)
    a = fire(None, x, x @ module.gate_proj.weight.detach().T, relu_squared, torch.arange(len(x)))
    h = a * (x @ module.up_proj.weight.detach().T)
    norm = module.ffn_sub_norm
    h = h * torch.rsqrt((h**2).mean(-1, keepdim=True) + norm.variance_epsilon) * norm.weight.detach()
    return (h @ module.down_proj.weight.detach().T).view_as(hidden)


def dbrx_experts(module: Any, fire: Fire, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """Three matrices of (experts · width, hidden), and hidden states that still have their batch dimension."""
    x = hidden.flatten(0, -2)
    shape = (module.num_experts, -1, x.shape[1])
    w1, v1, w2 = (matrix.detach().view(shape) for matrix in (module.mlp.w1, module.mlp.v1, module.mlp.w2))
    result = torch.zeros_like(x)
    for expert in range(len(w1)):
        rows, slots = (index == expert).nonzero(as_tuple=True)
        if not len(rows):
            continue
        a = fire(expert, x[rows], x[rows] @ w1[expert].T, silu, rows)
        out = (a * (x[rows] @ v1[expert].T)) @ w2[expert]
        result.index_add_(0, rows, out * weights[rows, slots][:, None])
    return result.view_as(hidden)


CLAMP = 1.0


def clamped_swiglu(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return silu(gate.clamp(max=CLAMP)), up.clamp(-CLAMP, CLAMP)


KINDS: dict[str, Kind] = {
    "afmoe": Kind(
        {
            **WINDOWS,
            "head_dim": 8,
            "num_dense_layers": 1,
            "moe_intermediate_size": 20,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_shared_experts": 2,
        },
        (gated(layers=(0,)), gated(SHARED, layers=SPARSE), Experts(ROUTED, layers=SPARSE)),
        note="The shared expert runs before the routed ones, on flattened rows. self_attn.gate_proj is attention.",
    ),
    "apertus": Kind(
        mlps=(Own("model.layers.{}.mlp", "model.layers.{}.mlp.down_proj", xielu_mlp),),
        note="xIELU has two learned parameters a block, and is above 0 for some inputs below 0.",
    ),
    "apertus1p5_text": Kind(
        mlps=(Own("model.layers.{}.mlp", "model.layers.{}.mlp.down_proj", xielu_mlp),),
        note="xIELU has two learned parameters a block, and is above 0 for some inputs below 0.",
    ),
    "arcee": Kind(mlps=(plain(LLAMA, "up_proj", "down_proj", relu_squared),)),
    "aria_text": Kind(
        {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 2},
        (Experts(ROUTED, transposed=True), gated(SHARED)),
        note="Every block is sparse. The parameters of the routed experts are (experts, in, out).",
    ),
    "axk1": Kind(
        {**DEEPSEEK, **GROUPS, **DENSE_FIRST},
        DEEPSEEK_MLPS,
        note="A norm follows the sum of routed and shared experts.",
    ),
    "axk2": Kind(
        {**DEEPSEEK, **GROUPS, **INDEXER, **DENSE_FIRST, "gated_norm_rank": 12},
        (
            plain("model.layers.{}.input_layernorm.mlp.", "fc1", "fc2", silu),
            plain("model.layers.{}.post_attention_layernorm.mlp.", "fc1", "fc2", silu, layers=SPARSE),
            *DEEPSEEK_MLPS,
        ),
        note="Norms are followed by gates that are small MLPs themselves (fc1, SiLU, fc2, sigmoid): their neurons are among those found.",
    ),
    "bailing_hybrid": Kind(
        {
            **LATENT,
            **GROUPS,
            **DENSE_FIRST,
            "q_lora_rank": None,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "head_dim": 8,
            "num_local_experts": 4,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
        },
        DEEPSEEK_MLPS,
    ),
    "bamba": Kind(
        {
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_state": 8,
            "mamba_chunk_size": 16,
        },
        (gated("model.layers.{}.feed_forward."),),
        note="Mamba blocks (0 and 2) and attention blocks (1) have the same MLP; the mixers' gates are left out.",
    ),
    "bart": Kind(BART, (plain(BART_LAYER, "fc1", "fc2"),), note=BART_NOTE),
    "beam": Kind(
        {
            **WINDOWS,
            **GROUPS,
            **DENSE_FIRST,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
        },
        (gated(layers=(0,)), Experts(ROUTED, layers=SPARSE)),
        note="Activation and product are computed in float32 whatever the dtype. self_attn.gate_proj is attention.",
    ),
    "bert": Kind({"is_decoder": True}, bert("bert.encoder"), note=ENCODER_NOTE),
    "bert-generation": Kind({"is_decoder": True}, bert("bert.encoder")),
    "big_bird": Kind(
        {"is_decoder": True, "attention_type": "original_full"},
        bert("bert.encoder", gelu_tanh),
        note="With the default attention_type, block_sparse, sequences longer than 704 tokens are attended to in both "
        "directions even where is_decoder is set. " + ENCODER_NOTE,
    ),
    "bigbird_pegasus": Kind(BART, (plain(BART_LAYER, "fc1", "fc2", gelu_tanh),), note=BART_NOTE),
    "biogpt": Kind(mlps=(plain("biogpt.layers.{}.", "fc1", "fc2"),)),
    "bitnet": Kind(
        mlps=(Own("model.layers.{}.mlp", "model.layers.{}.mlp.down_proj", normed_mlp),),
        note="A norm stands between activation times up and the down projection: no edit of the weights is exact, so none is exported.",
    ),
    "blenderbot": Kind(BART, (plain(BART_LAYER, "fc1", "fc2"),), note=BART_NOTE),
    "blenderbot-small": Kind(BART, (plain(BART_LAYER, "fc1", "fc2"),), note=BART_NOTE),
    "bloom": Kind(
        {"n_layer": 3, "n_head": 4},
        (plain("transformer.h.{}.mlp.", "dense_h_to_4h", "dense_4h_to_h", gelu_tanh),),
        note="The width is always four times the hidden size.",
    ),
    "blt": Kind(
        {
            "hidden_size": ...,
            "intermediate_size": ...,
            "num_hidden_layers": ...,
            "num_attention_heads": ...,
            "num_key_value_heads": ...,
            "encoder_hash_byte_group_size": [3, 4],
            "encoder_hash_byte_group_vocab": 50,
            "patching_threshold": 5.08,
            "patcher_config": {
                "vocab_size": 300,
                "hidden_size": 32,
                "intermediate_size": 44,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
            },
            "encoder_config": {
                "vocab_size": 300,
                "hidden_size": 32,
                "hidden_size_global": 48,
                "intermediate_size": 44,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
            },
            "global_config": {
                "hidden_size": 48,
                "intermediate_size": 52,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
            },
            "decoder_config": {
                "vocab_size": 300,
                "hidden_size": 32,
                "hidden_size_global": 48,
                "intermediate_size": 44,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
            },
        },
        (
            gated("model.local_encoder.layers.{}.mlp.", layers=(0,)),
            gated("model.global_transformer.layers.{}.mlp.", layers=(0, 1)),
            gated("model.local_decoder.layers.{}.mlp."),
        ),
        unsupported="Three stacks of blocks: the rows of the global one are patches of bytes, not tokens.",
    ),
    "camembert": Kind({"is_decoder": True}, bert("roberta.encoder"), note=ENCODER_NOTE),
    "codegen": Kind(
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 44, "n_positions": 1024, "rotary_dim": 4},
        (plain("transformer.h.{}.mlp.", "fc_in", "fc_out", gelu_tanh),),
        note="Attention and MLP run side by side on the same input.",
    ),
    "cohere": Kind(mlps=(gated(),), note="Attention and MLP run side by side on the same input."),
    "cohere2": Kind(WINDOWS, (gated(),), note="Attention and MLP run side by side on the same input."),
    "cohere2_moe": Kind(
        {
            **WINDOWS,
            **DENSE_FIRST,
            "head_dim": 8,
            "prefix_dense_intermediate_size": 36,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_shared_experts": 2,
        },
        DEEPSEEK_MLPS,
        note="The shared expert runs on flattened rows. Attention and MLP run side by side on the same input.",
    ),
    "cohere_compass_text": Kind(
        {
            **WINDOWS,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                "full_attention": None,
            },
        },
        (gated(),),
        note="Attention and MLP run side by side on the same input.",
    ),
    "cpmant": Kind(
        not_applicable="CPM-Ant is not causal: its attention mask lets every token see the whole sequence.",
    ),
    "ctrl": Kind(
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "dff": 44, "n_positions": 1024},
        (plain("transformer.h.{}.ffn.", "0", "2", relu),),
    ),
    "cwm": Kind({**WINDOWS, "head_dim": 8}, (gated(),)),
    "data2vec-text": Kind({"is_decoder": True}, bert("data2vec_text.encoder"), note=ENCODER_NOTE),
    "dbrx": Kind(
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 3,
            "max_seq_len": 1024,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 44, "moe_num_experts": 4, "moe_top_k": 2},
        },
        (Experts("transformer.blocks.{}.ffn.experts", number="num_experts", by_hand=dbrx_experts),),
        note="The experts' matrices lie in experts.mlp as w1, v1 and w2 of (experts · width, hidden).",
    ),
    "deepseek_v2": Kind({**DEEPSEEK, "first_k_dense_replace": 1}, DEEPSEEK_MLPS),
    "deepseek_v3": Kind({**DEEPSEEK, **GROUPS, "first_k_dense_replace": 1}, DEEPSEEK_MLPS),
    "deepseek_v32": Kind({**DEEPSEEK, **GROUPS, **INDEXER, "first_k_dense_replace": 1}, DEEPSEEK_MLPS),
    "deepseek_v4": Kind(
        {
            "num_key_value_heads": 1,
            "head_dim": 16,
            "qk_rope_head_dim": 8,
            "q_lora_rank": 16,
            "o_groups": 2,
            "o_lora_rank": 8,
            **INDEXER,
            "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
            "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 4},
            "sliding_window": 16,
            "hc_mult": 2,
            "hc_sinkhorn_iters": 3,
            "mlp_layer_types": ["hash_moe", "moe", "moe"],
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "swiglu_limit": CLAMP,
        },
        (
            Experts(ROUTED, glu=clamped_swiglu),
            Mlp(SHARED + "gate_proj", SHARED + "down_proj", SHARED + "up_proj", glu=clamped_swiglu),
        ),
        note="Block 0 routes by token id through a table that is all zeros in a new model: every token goes to "
        "expert 0 twice. Between the blocks a token has several residual streams, inside the MLPs only one.",
    ),
    "diffllama": Kind(mlps=(gated(),)),
    "doge": Kind(
        mlps=(gated(),),
        note="With is_moe the same three layers are a shared expert beside retrieval experts of one neuron each "
        "(down_embed and up_embed, looked up by index); their routing mixes the tokens of a batch and is not causal.",
    ),
}
