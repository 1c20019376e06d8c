"""Random tiny models of many architectures: real Hugging Face classes, no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY = 300
LAYERS = 3
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 16},
    "gemma3_text": {"head_dim": 8, "sliding_window": 16},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4, "n_inner": 44, "n_positions": 1024},
    "gpt_neox": {},
    "opt": {"ffn_dim": 44, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": LAYERS, "n_head": 4},
    "falcon": {"ffn_hidden_size": 44},
    "mpt": {"d_model": 32, "n_layers": LAYERS, "n_heads": 4, "max_seq_len": 1024},
    "lfm2": {"block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3},
}
PACKING = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi", "phi3", "gpt2", "gpt_neox"}
"""Architectures whose position ids keep documents apart; OPT, BLOOM and MPT ignore them, LFM2's convolution leaks."""


def tiny(kind: str, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model, its weights large enough that activations differ between tokens."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(kind, **{**COMMON, **CONFIGS[kind], **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return model


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, the first four of them <pad>, <s>, </s> and <unk>; it adds <s> as Llama's does."""
    tokenizer = Tokenizer(models.WordLevel({name: k for k, name in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def tiny_tokenizer(bos: bool = True, eos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of VOCABULARY entries: <pad> 0, <s> 1, </s> 2; with `bos` it adds <s> as Llama's does, with
    `eos` </s> at the end.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the cat sat on the mat and the dog ate the rat", "le chat dort sur le lit et le chien mange"], trainer
    )
    around = f"{'<s> ' * bos}$A{' </s>' * eos}"
    if bos or eos:
        special = [("<s>", 1), ("</s>", 2)]
        tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
