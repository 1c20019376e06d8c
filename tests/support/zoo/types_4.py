"""marian to qwen2: how a tiny model of each type is built, and its MLPs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from support.tiny import COMMON
from support.zoo.kinds import LLAMA, Experts, Glu, Kind, Mlp, gated, gelu, gelu_tanh, plain, relu, relu_squared

WRAPPED: dict[str, Any] = dict.fromkeys(COMMON, ...)
"""For a config whose language model is described in a part of it."""

SEQ2SEQ: dict[str, Any] = {
    "encoder_ffn_dim": 20,
    "decoder_layers": 3,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 44,
}
BART = (plain("model.decoder.layers.{}.", "fc1", "fc2"),)

AUDIO = "Its tokens are audio codes, several to a step; the text it follows goes through an encoder."

EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
PHI3 = (Mlp(LLAMA + "gate_up_proj", LLAMA + "down_proj", LLAMA + "gate_up_proj"),)
DENSE, SPARSE = (0,), (1, 2)

M3_LIMIT = 1.0
"""The default of 7 would hardly ever clamp anything in a tiny model."""


def swiglu_oai(limit: float, alpha: float = 1.702) -> Glu:
    def glu(gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        gate = gate.clamp(max=limit)
        return gate * torch.sigmoid(alpha * gate), up.clamp(-limit, limit) + 1

    return glu


def m3_dense(prefix: str, layers: tuple[int, ...]) -> Mlp:
    fused = prefix + "gate_up_proj"
    return Mlp(fused, prefix + "down_proj", fused, glu=swiglu_oai(M3_LIMIT), layers=layers)


KINDS: dict[str, Kind] = {
    "marian": Kind({**SEQ2SEQ, "decoder_start_token_id": 0}, BART),
    "mbart": Kind(SEQ2SEQ, BART),
    "megatron-bert": Kind(
        {"is_decoder": True},
        (plain("bert.encoder.layer.{}.", "intermediate.dense", "output.dense"),),
        note="Left out: the head's cls.predictions.transform (a norm stands between its activation and the LM head).",
    ),
    "mellum": Kind(
        {
            "head_dim": 8,
            "moe_intermediate_size": 28,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        (gated(layers=DENSE), Experts("model.layers.{}.mlp.experts", layers=SPARSE)),
        note="The multi-token prediction layers of a checkpoint are not built.",
    ),
    "mimo_v2_flash": Kind(
        {
            "head_dim": 12,
            "v_head_dim": 8,
            "moe_intermediate_size": 28,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        },
        (gated(layers=DENSE), Experts("model.layers.{}.mlp.experts", layers=SPARSE)),
        note="The router works in float32 whatever the model's dtype.",
    ),
    "minicpm3": Kind(
        {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
        },
        (gated(),),
        note="The MLP's output is scaled before it is added to the residual stream.",
    ),
    "minimax": Kind(
        {**EXPERTS, "block_size": 4, "layer_types": ["full_attention", "linear_attention", "full_attention"]},
        (Experts("model.layers.{}.mlp.experts"),),
        note="Left out: the silu of q, k and v and the sigmoid gate in lightning attention (block 1).",
    ),
    "minimax_m2": Kind({**EXPERTS, "head_dim": 8}, (Experts("model.layers.{}.mlp.experts"),)),
    "minimax_m3_vl_text": Kind(
        {
            **EXPERTS,
            "head_dim": 8,
            "intermediate_size": 28,
            "dense_intermediate_size": 44,
            "shared_intermediate_size": 36,
            "swiglu_limit": M3_LIMIT,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "layer_types": ["full_attention", "minimax_m3_sparse", "full_attention"],
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_block_size": 4,
            "index_topk_blocks": 2,
        },
        (
            m3_dense("model.layers.{}.mlp.", DENSE),
            m3_dense("model.layers.{}.mlp.shared_experts.", SPARSE),
            Experts("model.layers.{}.mlp.experts", glu=swiglu_oai(M3_LIMIT), layers=SPARSE),
        ),
        note=(
            "Gate and up are clamped, and up + 1 multiplies the activation; no activation module. The shared expert"
            " runs first, on flattened tokens."
        ),
    ),
    "ministral": Kind({"head_dim": 8, "sliding_window": 16}, (gated(),)),
    "ministral3": Kind({"head_dim": 8}, (gated(),)),
    "mistral": Kind({"sliding_window": 16}, (gated(),)),
    "mllama": Kind(
        {**WRAPPED, "text_config": {**COMMON, "num_hidden_layers": 4, "cross_attention_layers": [1]}},
        (gated(layers=(0, 2, 3)),),
        blocks=4,
        note="Left out: block 1, a cross-attention block, is skipped (its MLP with it) where there is no image.",
    ),
    "modernbert-decoder": Kind(
        {"cls_token_id": 1, "sep_token_id": 2},
        (gated(function=gelu, names=("Wi", "Wo", "Wi")),),
        note="Left out: the head lm_head.dense (a norm stands between its activation and the decoder).",
    ),
    "moshi": Kind(
        {"ffn_dim": 88},
        (gated(names=("fc1", "fc2", "fc1")),),
        note="ffn_dim is twice the MLP's width. The depth decoder is not part of the causal LM.",
    ),
    "moss_transcribe_diarize": Kind(
        {
            **WRAPPED,
            "text_config": {**COMMON, "model_type": "qwen3", "head_dim": 8},
            "audio_config": {
                "num_mel_bins": 8,
                "hidden_size": 16,
                "intermediate_size": 20,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "max_source_positions": 20,
            },
        },
        (gated("model.language_model.layers.{}.mlp."),),
        note="Left out: the audio tower's MLPs and the projector, which never see text.",
    ),
    "mpt": Kind(
        {"max_seq_len": 1024},
        (plain("transformer.blocks.{}.ffn.", "up_proj", "down_proj"),),
        note="The width is 4 · hidden whatever the config says. The residual is added inside the MLP module.",
    ),
    "musicgen": Kind(not_applicable=AUDIO),
    "musicgen_melody": Kind(not_applicable=AUDIO),
    "mvp": Kind(
        SEQ2SEQ,
        BART,
        note="Left out: self_attn_prompt of use_prompt=True, an MLP of prompt positions rather than tokens.",
    ),
    "nanochat": Kind(mlps=(plain(LLAMA, "fc1", "fc2", relu_squared),)),
    "nemotron": Kind(mlps=(plain(LLAMA, "up_proj", "down_proj", relu_squared),)),
    "nemotron_h": Kind(
        {
            "num_hidden_layers": ...,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "head_dim": 8,
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 28,
            "moe_shared_expert_intermediate_size": 36,
            "moe_latent_size": 20,
        },
        (
            Experts("model.layers.{}.mixer.experts", relu_squared, layers=(1,), gate_up="up_proj", gated=False),
            plain("model.layers.{}.mixer.shared_experts.", "up_proj", "down_proj", relu_squared, layers=(1,)),
            plain("model.layers.{}.mixer.", "up_proj", "down_proj", relu_squared, layers=(3,)),
        ),
        blocks=4,
        note=(
            "A block is either a mixer or an MLP: 0 and 2 hold none. The routed experts work in a latent space between"
            " two linear layers (not an MLP: no activation between them but the experts') and sum in float32."
        ),
    ),
    "olmo": Kind(mlps=(gated(),)),
    "olmo2": Kind(mlps=(gated(),)),
    "olmo3": Kind(
        {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        (gated(),),
    ),
    "olmo_hybrid": Kind(
        {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        (gated(),),
    ),
    "olmoe": Kind({"num_experts": 4, "num_experts_per_tok": 2}, (Experts("model.layers.{}.mlp.experts"),)),
    "openai-gpt": Kind(
        mlps=(plain("transformer.h.{}.mlp.", "c_fc", "c_proj", gelu_tanh),),
        note="The width is 4 · hidden; gelu means the tanh gelu here, one module shared by all blocks.",
    ),
    "opt": Kind(
        {"ffn_dim": 44},
        (plain("model.decoder.layers.{}.", "fc1", "fc2", relu),),
        note="The MLP sees flattened tokens: (batch · tokens, hidden).",
    ),
    "pegasus": Kind(SEQ2SEQ, BART),
    "persimmon": Kind(mlps=(plain(LLAMA, "dense_h_to_4h", "dense_4h_to_h", relu_squared),)),
    "phi": Kind(
        mlps=(plain(LLAMA, "fc1", "fc2", gelu_tanh),),
        note="The MLP runs beside attention, on the same input.",
    ),
    "phi3": Kind(mlps=PHI3),
    "phi4_multimodal": Kind(
        {
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 20,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 28,
                "crop_size": 28,
            },
            "audio_config": {
                "hidden_size": 16,
                "intermediate_size": 20,
                "num_blocks": 2,
                "num_attention_heads": 2,
                "ext_pw_out_channel": 16,
                "depthwise_separable_out_channel": 16,
                "nemo_conv_channels": 8,
                "input_size": 8,
                "bias_max_distance": 10,
            },
        },
        PHI3,
        note="Left out: everything in model.embed_tokens_extend (image and audio encoders and projections).",
    ),
    "phimoe": Kind(
        EXPERTS,
        (Experts("model.layers.{}.mlp.experts"),),
        note="The two experts' weights need not sum to 1: each is a softmax of its own.",
    ),
    "plbart": Kind(SEQ2SEQ, BART),
    "prophetnet": Kind(
        not_applicable="Not causal with more than one attention head, as in every checkpoint: its relative positions mix up "
        "positions and heads, so later tokens leak into earlier ones."
    ),
    "qwen2": Kind(mlps=(gated(),)),
}
