"""dory to gpt_bigcode: how a tiny model of each type is built, and its MLPs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Gemma3nVisionConfig, PreTrainedModel

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

DENSE, SPARSE = (0,), (1, 2)
WRAPPED: dict[str, Any] = dict.fromkeys(COMMON, ...)
"""For a config whose language model is described in a part of it."""
TEXT_OF_WRAPPER = "model.language_model.layers.{}."
ENCODER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VIT: dict[str, Any] = {**ENCODER, "image_size": 32, "patch_size": 16}


# --- mixtures of experts -------------------------------------------------------------------------------------------

MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
INDEXER: dict[str, Any] = {"index_topk": 4, "index_head_dim": 8, "index_n_heads": 2}
ROUTED: dict[str, Any] = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}

EXPERTS = Experts(LLAMA + "experts", layers=SPARSE)
SHARED_LAST = (gated(layers=DENSE), EXPERTS, gated(LLAMA + "shared_experts.", layers=SPARSE))
SHARED_FIRST = (gated(layers=DENSE), gated(LLAMA + "shared_experts.", layers=SPARSE), EXPERTS)

DOTS3: dict[str, Any] = {
    **MLA,
    **INDEXER,
    **ROUTED,
    "qk_nope_head_dim": 12,
    "head_dim": 16,
    "shared_experts_intermediate_size": 40,
    "first_k_dense_replace": 1,
    "sliding_window": 4,
    "layer_types": ["indexed_attention", "indexed_attention", "sliding_attention"],
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 12,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 12,
    "swa_v_head_dim": 8,
}
DOTS3_NOTE = "Block 2 has sliding attention, the others attend to what an indexer picks."


# --- single families -----------------------------------------------------------------------------------------------


def dory(module: nn.Module, fire: Fire, hidden: Tensor) -> Tensor:
    """Learned scales after gate and up, and the product is brought to length 1 before the down projection."""
    x = hidden.flatten(0, -2)
    gate, up = (
        x @ getattr(module, f"{name}_proj").weight.detach().T * getattr(module, f"suv_{name}").detach() * 32**0.5
        for name in ("gate", "up")
    )
    product = fire(None, x, gate, silu, torch.arange(len(x))) * up
    product = product / (product.square().sum(-1, keepdim=True) + 1e-6).sqrt()
    return (product @ module.get_submodule("down_proj").weight.detach().T).view_as(hidden)


FALCON_H1_GATE = 0.75


def falcon_h1(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return silu(gate * FALCON_H1_GATE), up


BERT_LM_HEAD = "Left out: the dense layer, activation and norm of the language-modeling head."

GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 44, "n_positions": 1024}

SLIDING_FULL: dict[str, Any] = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

FUSED = (Mlp(LLAMA + "gate_up_proj", LLAMA + "down_proj", LLAMA + "gate_up_proj"),)

# --- Gemma 3n and 4 ------------------------------------------------------------------------------------------------

FOUR_LAYERS: dict[str, Any] = {
    "num_hidden_layers": 4,
    "head_dim": 8,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "num_kv_shared_layers": 1,
}
PER_LAYER_INPUT: dict[str, Any] = {"hidden_size_per_layer_input": 12, "vocab_size_per_layer_input": 300}
PER_LAYER_NOTE = (
    "Left out: a block's per-layer input (per_layer_input_gate, gelu, times the token's own vector for that block,"
    " per_layer_projection), in which the second factor is no projection of the hidden state."
)


def top_quarter(z: Tensor) -> Tensor:
    """Only what exceeds the third quartile of a normal distribution with a token's mean and deviation passes."""
    return gelu_tanh(relu(z - z.mean(-1, keepdim=True) - 0.6744897501960817 * z.std(-1, keepdim=True, unbiased=False)))


GEMMA3N: dict[str, Any] = {
    **FOUR_LAYERS,
    **PER_LAYER_INPUT,
    "intermediate_size": [44, 44, 40, 44],
    "activation_sparsity_pattern": [0.75, 0.0, 0.0, 0.0],
    "altup_num_inputs": 3,
    "laurel_rank": 8,
}
GEMMA3N_NOTE = (
    PER_LAYER_NOTE + " In block 0 the gate passes only its largest values (cut at mean and deviation over the neurons)"
    " before the gelu; blocks may differ in width. Left out: laurel (two linear layers without activation) and altup"
    " (linear layer, tanh, linear layer, but a router: it gives the coefficients that mix the block's copies)."
)


def gemma3n_mlps(block: str) -> tuple[Mlp | Experts, ...]:
    return (
        gated(block + "mlp.", top_quarter, layers=(0,)),
        gated(block + "mlp.", gelu_tanh, layers=(1, 2, 3)),
    )


class NoVisionConfig(Gemma3nVisionConfig):
    """The real vision tower needs timm, and no text runs through it."""

    model_type = "gemma3n_no_vision"


class NoVision(PreTrainedModel):
    config_class = NoVisionConfig

    def __init__(self, config: NoVisionConfig) -> None:
        super().__init__(config)
        self.post_init()


AutoModel.register(NoVisionConfig, NoVision, exist_ok=True)

GEMMA4: dict[str, Any] = {
    **FOUR_LAYERS,
    **PER_LAYER_INPUT,
    "global_head_dim": 16,
    "use_double_wide_mlp": True,
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 20,
}
GEMMA4_NOTE = (
    "Every block runs a dense MLP, then routed experts on the residual stream as it was before the dense one. "
    + PER_LAYER_NOTE
    + " Block 3 shares keys and values and is therefore twice as wide; with"
    " logits_to_keep such blocks are given the last tokens only."
)
GEMMA4_UNIFIED: dict[str, Any] = {**FOUR_LAYERS, "global_head_dim": 16, "use_double_wide_mlp": True}
GEMMA4_UNIFIED_NOTE = (
    "Block 3 shares keys and values and is therefore twice as wide; with logits_to_keep such blocks are given the last"
    " tokens only."
)
ASSISTANT = (
    "An assistant that drafts tokens for another Gemma 4: it needs that model's hidden states, keys and values, and"
    " does not run from token ids."
)


def gemma4_mlps(block: str) -> tuple[Mlp | Experts, ...]:
    return (
        gated(block + "mlp.", gelu_tanh),
        Experts(block + "experts", gelu_tanh),
    )


def wrapped(text: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    return {**WRAPPED, "text_config": {**COMMON, **(text or {})}, **parts}


def bert(model: str) -> tuple[Mlp]:
    return (plain(model + ".encoder.layer.{}.", "intermediate.dense", "output.dense", gelu),)


KINDS: dict[str, Kind] = {
    "dory": Kind(
        {"head_dim": 8, "n_input_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 2, **SLIDING_FULL},
        (
            Own(LLAMA[:-1], LLAMA + "down_proj", dory, layers=(0, 2)),
            Own(LLAMA[:-1], LLAMA + "down_proj", dory, layers=(1,)),
        ),
        note=(
            "Block 1 is looped: it runs twice in a forward. Gate and up are scaled by learned vectors, and"
            " activation · up is brought to length 1 before down_proj: scaling all activations is lost."
        ),
    ),
    "dots1": Kind(
        {
            **ROUTED,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        SHARED_LAST,
    ),
    "dots3_note": Kind(
        wrapped(DOTS3, vision_config={"adapter_out_dim": 32}, audio_config={"adapter_out_dim": 32}),
        SHARED_LAST,
        note="The causal LM is built from text_config alone, without vision and audio towers. " + DOTS3_NOTE,
    ),
    "dots3_note_text": Kind(DOTS3, SHARED_LAST, note=DOTS3_NOTE),
    "electra": Kind({"embedding_size": 16, "is_decoder": True}, bert("electra"), note=BERT_LM_HEAD),
    "emu3": Kind(wrapped(), (gated(),), note="The causal LM is built from text_config alone, without the image codec."),
    "ernie": Kind({"is_decoder": True}, bert("ernie"), note=BERT_LM_HEAD),
    "ernie4_5": Kind({"head_dim": 8}, (gated(),)),
    "ernie4_5_moe": Kind(
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 20,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
        },
        SHARED_FIRST,
    ),
    "exaone": Kind(mlps=(gated(),), note="Llama's classes."),
    "exaone4": Kind(SLIDING_FULL, (gated(),)),
    "exaone_moe": Kind(
        {
            **SLIDING_FULL,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "num_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
        SHARED_LAST,
    ),
    "falcon": Kind(
        {"ffn_hidden_size": 44},
        (plain("transformer.h.{}.mlp.", "dense_h_to_4h", "dense_4h_to_h"),),
        note="FalconLinear is a subclass of Linear; MLP and attention run in parallel.",
    ),
    "falcon_h1": Kind(
        {
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
            "mlp_multipliers": [FALCON_H1_GATE, 0.5],
        },
        (
            Mlp(
                "model.layers.{}.feed_forward.gate_proj",
                "model.layers.{}.feed_forward.down_proj",
                "model.layers.{}.feed_forward.up_proj",
                glu=falcon_h1,
            ),
        ),
        note=(
            "Every block runs Mamba and attention in parallel. What gate_proj gives is multiplied by a number of the"
            " config before the activation, what down_proj gives by another. Left out: the Mamba mixer's gate."
        ),
    ),
    "falcon_mamba": Kind(
        not_applicable="A pure Mamba model: its blocks are state-space mixers and hold no MLP.",
    ),
    "flex_olmo": Kind(
        {"num_experts": 4, "num_experts_per_tok": 2},
        (Experts(LLAMA + "experts"),),
    ),
    "flint": Kind(
        {
            "head_dim": 8,
            "sliding_window": 4,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
            "mlp_only_layers": [0],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 40,
        },
        (gated(layers=DENSE), EXPERTS, gated(LLAMA + "shared_expert.", layers=SPARSE)),
    ),
    "fuyu": Kind(
        wrapped({"model_type": "persimmon"}, patch_size=4),
        (plain(TEXT_OF_WRAPPER + "mlp.", "dense_h_to_4h", "dense_4h_to_h", relu_squared),),
        note="The language model is a Persimmon.",
    ),
    "gemma": Kind({"head_dim": 8}, (gated(function=gelu_tanh),)),
    "gemma2": Kind({"head_dim": 8, **SLIDING_FULL}, (gated(function=gelu_tanh),)),
    "gemma3": Kind(
        wrapped({"head_dim": 8, **SLIDING_FULL}, vision_config=VIT, mm_tokens_per_image=4),
        (gated(TEXT_OF_WRAPPER + "mlp.", gelu_tanh),),
        note="Left out: the MLPs of the vision tower.",
    ),
    "gemma3_text": Kind({"head_dim": 8, **SLIDING_FULL}, (gated(function=gelu_tanh),)),
    "gemma3n": Kind(
        wrapped(
            GEMMA3N,
            vision_config=NoVisionConfig(hidden_size=16, vocab_size=8),
            audio_config={
                "hidden_size": 16,
                "vocab_size": 8,
                "input_feat_size": 8,
                "conf_num_attention_heads": 2,
                "conf_num_hidden_layers": 1,
                "sscp_conv_channel_size": [4, 4],
            },
        ),
        gemma3n_mlps(TEXT_OF_WRAPPER),
        blocks=4,
        note="The vision tower, which needs timm, is replaced by an empty one. " + GEMMA3N_NOTE,
    ),
    "gemma3n_text": Kind(GEMMA3N, gemma3n_mlps("model.layers.{}."), blocks=4, note=GEMMA3N_NOTE),
    "gemma4": Kind(
        wrapped(
            GEMMA4,
            vision_config={**ENCODER, "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 16},
            audio_config={
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "subsampling_conv_channels": [4, 4],
                "output_proj_dims": 16,
            },
        ),
        gemma4_mlps(TEXT_OF_WRAPPER),
        blocks=4,
        note=GEMMA4_NOTE,
    ),
    "gemma4_assistant": Kind(not_applicable=ASSISTANT),
    "gemma4_text": Kind(GEMMA4, gemma4_mlps("model.layers.{}."), blocks=4, note=GEMMA4_NOTE),
    "gemma4_unified": Kind(
        wrapped(
            GEMMA4_UNIFIED,
            vision_config={
                "patch_size": 2,
                "pooling_kernel_size": 1,
                "mm_embed_dim": 16,
                "mm_posemb_size": 4,
                "output_proj_dims": 16,
            },
            audio_config={"audio_embed_dim": 16},
        ),
        (gated(TEXT_OF_WRAPPER + "mlp.", gelu_tanh),),
        blocks=4,
        note=GEMMA4_UNIFIED_NOTE,
    ),
    "gemma4_unified_assistant": Kind(not_applicable=ASSISTANT),
    "gemma4_unified_text": Kind(GEMMA4_UNIFIED, (gated(function=gelu_tanh),), blocks=4, note=GEMMA4_UNIFIED_NOTE),
    "git": Kind(
        {"vision_config": VIT},
        bert("git"),
        note="Without images its text attends causally. Left out: the MLPs of the image encoder.",
    ),
    "glm": Kind({"head_dim": 8}, FUSED),
    "glm4": Kind({"head_dim": 8}, FUSED),
    "glm4_moe": Kind({**ROUTED, "n_shared_experts": 2, "first_k_dense_replace": 1}, SHARED_LAST),
    "glm4_moe_lite": Kind(
        {**MLA, **ROUTED, "n_shared_experts": 2, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        SHARED_LAST,
    ),
    "glm_moe_dsa": Kind(
        {
            **MLA,
            **INDEXER,
            **ROUTED,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "indexer_types": ["full", "full", "shared"],
        },
        SHARED_LAST,
        note="A block takes what the indexer of an earlier one picked and returns a tuple.",
    ),
    "got_ocr2": Kind(
        wrapped(
            {"model_type": "qwen2"},
            vision_config={
                "hidden_size": 16,
                "output_channels": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 32,
                "window_size": 2,
                "global_attn_indexes": [0],
                "mlp_dim": 24,
            },
        ),
        (gated(TEXT_OF_WRAPPER + "mlp."),),
        note="The language model is a Qwen2. Left out: the MLPs of the vision tower.",
    ),
    "gpt-sw3": Kind(
        GPT2,
        (plain("transformer.h.{}.mlp.", "c_fc", "c_proj", gelu_tanh),),
        note="GPT-2's classes; its linear layers are Conv1D.",
    ),
    "gpt_bigcode": Kind(
        {**GPT2, "num_key_value_heads": ...},
        (plain("transformer.h.{}.mlp.", "c_fc", "c_proj", gelu_tanh),),
    ),
}
