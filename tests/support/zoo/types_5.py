"""From qwen2_moe to zaya."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from support.tiny import COMMON
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
"""The blocks with experts where block 0 is dense."""
MIXED = ["linear_attention", "full_attention", "linear_attention"]


def experts(layers: Sequence[int] | None = None) -> Experts:
    return Experts(LLAMA + "experts", layers=layers)


def encoder(base: str) -> Mlp:
    """The MLP of the BERT family."""
    return plain(base + ".encoder.layer.{}.", "intermediate.dense", "output.dense")


def wrapped(text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    """A multimodal configuration: the sizes belong to the text model alone."""
    return {**dict.fromkeys(COMMON, ...), "text_config": {**COMMON, **text}, "vision_config": vision}


DECODER = {"is_decoder": True}
QWEN_MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
    "shared_expert_intermediate_size": 24,
}
DELTA_NET = {
    "head_dim": 16,
    "layer_types": MIXED,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
}
QWEN_VISION_NOTE = "The causal class takes the text configuration alone, no vision tower is built."
QWEN_SHARED = gated(LLAMA + "shared_expert.")
QWEN_SPARSE = (QWEN_SHARED, experts())
"""The shared expert runs before the routed ones."""

QWEN4 = {
    **DELTA_NET,
    **QWEN_MOE,
    "layer_types": ["linear_attention", "indexed_attention", "linear_attention"],
    "hc_count": 4,
    "hc_lowrank": 20,
    "ple_layer_ids": [1],
    "ngram_size": 3,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 50,
    "make_ngram_vocab_size_divisible_by": 8,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
}


def silu_of_quarter(x: Tensor) -> Tensor:
    """The hyper-connections divide by their number of streams (QWEN4's hc_count) before the activation."""
    return silu(x / 4)


QWEN4_NOTE = (
    "Left out: the hyper-connections' input mixer (linear, silu, linear, sigmoid), a gate over the residual streams; the gate of "
    "the n-gram embeddings (ple), two linear layers joined by a dot product and a convolution."
)

GLM_MOE = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 20,
}
GLM_SPARSE = (gated(layers=(0,)), experts(SPARSE), gated(LLAMA + "shared_experts.", layers=SPARSE))
"""The shared experts are one MLP and run after the routed ones."""
LATENT = {"num_key_value_heads": 4, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}


def zamba2_mlp(module: Any, fire: Fire, hidden: Tensor, layer_idx: int) -> Tensor:
    """A fused gated MLP, the low-rank adapter of the block that calls it added to its first weight."""
    tokens = hidden.flatten(0, -2)
    inner, outer = module.gate_up_proj_adapter_list[module.layer_dic[layer_idx]]
    weight = module.gate_up_proj.weight.detach() + outer.weight.detach() @ inner.weight.detach()
    gate, up = (tokens @ weight.T).chunk(2, dim=-1)
    changed = fire(None, tokens, gate, gelu, torch.arange(len(tokens)))
    return ((changed * up) @ module.down_proj.weight.detach().T).view_as(hidden)


KINDS: dict[str, Kind] = {
    "qwen2_moe": Kind(
        {**QWEN_MOE, "mlp_only_layers": [0]},
        (gated(layers=(0,)), gated(LLAMA + "shared_expert.", layers=SPARSE), experts(SPARSE)),
        note="The shared expert's output is multiplied by a sigmoid of its own linear layer.",
    ),
    "qwen3": Kind({"head_dim": 8}, (gated(),)),
    "qwen3_5": Kind(wrapped(DELTA_NET, QWEN_VISION), (gated(),), note=QWEN_VISION_NOTE),
    "qwen3_5_moe": Kind(wrapped({**DELTA_NET, **QWEN_MOE}, QWEN_VISION), QWEN_SPARSE, note=QWEN_VISION_NOTE),
    "qwen3_5_moe_text": Kind({**DELTA_NET, **QWEN_MOE}, QWEN_SPARSE, note="No block can be dense."),
    "qwen3_5_text": Kind(DELTA_NET, (gated(),)),
    "qwen3_moe": Kind({**QWEN_MOE, "mlp_only_layers": [0]}, (gated(layers=(0,)), experts(SPARSE))),
    "qwen3_next": Kind(
        {**DELTA_NET, **QWEN_MOE, "mlp_only_layers": [0]},
        (gated(layers=(0,)), gated(LLAMA + "shared_expert.", layers=SPARSE), experts(SPARSE)),
    ),
    "qwen4_exp": Kind(wrapped(QWEN4, QWEN_VISION), QWEN_SPARSE, note=f"{QWEN_VISION_NOTE} {QWEN4_NOTE}"),
    "qwen4_exp_text": Kind(QWEN4, QWEN_SPARSE, note=QWEN4_NOTE),
    "recurrent_gemma": Kind(
        {"intermediate_size": 88, "block_types": ["recurrent", "recurrent", "attention"]},
        (gated("model.layers.{}.mlp_block.", gelu_tanh),),
        note="The MLP has half of intermediate_size. Left out: the recurrent blocks' linear_y -> gelu -> linear_out, "
        "which gates the recurrence.",
    ),
    "reformer": Kind(
        {
            "is_decoder": True,
            "attn_layers": ["local", "lsh", "local"],
            "attention_head_size": 8,
            "axial_pos_shape": [32, 32],
            "axial_pos_embds_dim": [12, 20],
            "feed_forward_size": 44,
            "hash_seed": 0,
        },
        (plain("reformer.encoder.layers.{}.feed_forward.", "dense.dense", "output.dense", relu),),
        note="The blocks run inside an autograd function that only differentiates in training mode. Beyond 64 tokens "
        "the hashed attention picks what a token sees by all tokens' hashes, later ones included.",
    ),
    "rembert": Kind({**DECODER, "input_embedding_size": 16, "output_embedding_size": 24}, (encoder("rembert"),)),
    "roberta": Kind(DECODER, (encoder("roberta"),)),
    "roberta-prelayernorm": Kind(DECODER, (encoder("roberta_prelayernorm"),)),
    "roc_bert": Kind(
        {
            **DECODER,
            "pronunciation_embed_dim": 8,
            "pronunciation_vocab_size": 20,
            "shape_embed_dim": 8,
            "shape_vocab_size": 20,
        },
        (encoder("roc_bert"),),
    ),
    "roformer": Kind(DECODER, (encoder("roformer"),)),
    "rwkv": Kind(
        {"rescale_every": 2},
        (plain("rwkv.blocks.{}.feed_forward.", "key", "value", relu_squared),),
        note="Channel mixing: its input is mixed with the token before, its output multiplied by the receptance gate. "
        "The first forward in evaluation mode halves the second weight from block rescale_every on, in place.",
    ),
    "sarvam_mla": Kind({**GLM_MOE, **LATENT}, GLM_SPARSE),
    "sarvam_moe": Kind({**GLM_MOE, "head_dim": 8}, GLM_SPARSE),
    "seed_oss": Kind({"head_dim": 8, "mlp_bias": True}, (gated(),)),
    "smollm3": Kind({"no_rope_layer_interval": 3, "mlp_bias": True}, (gated(),)),
    "solar_open": Kind(
        {**GLM_MOE, "first_k_dense_replace": ..., "head_dim": 8},
        (experts(), gated(LLAMA + "shared_experts.")),
        note="No block can be dense.",
    ),
    "stablelm": Kind({"use_parallel_residual": True}, (gated(),)),
    "starcoder2": Kind(mlps=(plain(LLAMA, "c_fc", "c_proj", gelu_tanh),)),
    "trocr": Kind(
        {"d_model": 32, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 44},
        (plain("model.decoder.layers.{}.", "fc1", "fc2"),),
        note="The cross-attention is built but needs encoder states to run.",
    ),
    "vaultgemma": Kind({"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}, (gated(function=gelu_tanh),)),
    "whisper": Kind(
        {
            "num_key_value_heads": ...,
            "d_model": 32,
            "encoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_layers": 3,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 44,
            "max_target_positions": 1024,
            "decoder_start_token_id": 1,
            "begin_suppress_tokens": None,
        },
        (plain("model.decoder.layers.{}.", "fc1", "fc2"),),
        note="The decoder alone; its cross-attention is built but needs encoder states to run.",
    ),
    "xglm": Kind(
        {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 44},
        (plain("model.layers.{}.", "fc1", "fc2"),),
        dtype=torch.float32,
    ),
    "xlm": Kind(
        {"emb_dim": 32, "n_layers": 3, "n_heads": 4, "causal": True},
        (plain("transformer.ffns.{}.", "lin1", "lin2"),),
        note="Causal only where the configuration says so. No module is a block: attentions, norms and MLPs (always 4 "
        "times the hidden size wide) are lists side by side.",
    ),
    "xlm-roberta": Kind(DECODER, (encoder("roberta"),)),
    "xlm-roberta-xl": Kind(DECODER, (encoder("roberta"),)),
    "xlnet": Kind(
        {
            "max_position_embeddings": ...,
            "d_model": 32,
            "n_layer": 3,
            "n_head": 4,
            "d_head": 8,
            "d_inner": 44,
            "attn_type": "uni",
        },
        (plain("transformer.layer.{}.ff.", "layer_1", "layer_2"),),
        dtype=torch.float32,
        unsupported="Causal only with attn_type='uni', and inside all is (tokens, sequences, width), not (sequences, tokens, width).",
    ),
    "xlstm": Kind(
        {
            "hidden_size": 128,  # what its cache holds is right for multiples of 128 only
            "num_heads": 4,
            "ffn_proj_factor": 1.375,
            "ffn_round_up_to_multiple_of": 4,
            "autocast_kernel_dtype": "float32",
        },
        (gated("backbone.blocks.{}.ffn.", names=("proj_up_gate", "proj_down", "proj_up")),),
    ),
    "xmod": Kind(
        {**DECODER, "languages": ["en_XX"], "default_language": "en_XX"},
        (encoder("roberta"), plain("roberta.encoder.layer.{}.output.adapter_modules.en_XX.", "dense1", "dense2")),
        note="Every language has an adapter, an MLP too, which sees the sequences of its language alone.",
    ),
    "youtu": Kind({**LATENT, "q_lora_rank": 16}, (gated(),)),
    "zamba": Kind(
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
            "mamba_d_state": 8,
        },
        (gated("model.layers.{}.shared_transf.feed_forward.", gelu, layers=(1, 3)),),
        blocks=4,
        note="The hybrid layers share one MLP's weights: each has neurons of its own, but none is exported alone.",
    ),
    "zamba2": Kind(
        {
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "layers_block_type": ["linear_attention", "hybrid", "hybrid", "hybrid"],
            "num_mem_blocks": 2,
            "adapter_rank": 4,
            "use_shared_attention_adapter": True,
            "use_mem_rope": True,
            "mamba_d_state": 8,
            "chunk_size": 16,
        },
        (
            Own(
                "model.layers.{}.shared_transformer.feed_forward",
                "model.layers.{}.shared_transformer.feed_forward.down_proj",
                zamba2_mlp,
                layers=(1, 2, 3),
            ),
        ),
        blocks=4,
        note="Several layers share one MLP's weights; to gate and up each adds a low-rank adapter of its own.",
    ),
    "zaya": Kind(
        {
            "head_dim": 8,
            "layer_types": ["hybrid", "hybrid_sliding", "hybrid"],
            "sliding_window": 16,
            "num_experts": 4,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 44,
            "router_hidden_size": 16,
        },
        (experts(),),
        note="One expert a token. Tokens sent to the skip expert reach expert 0 with weight 0. Left out: the router, "
        "itself linear -> gelu -> linear -> gelu -> linear.",
    ),
}
