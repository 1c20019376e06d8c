"""A GGUF file of a tiny model."""

from __future__ import annotations

import pytest
import torch


def write_gguf(model, path):
    """A Llama as a GGUF file, its MLPs in 8 bits; what the file's weights are is written back into the model."""
    package = pytest.importorskip("gguf")
    config, kinds = model.config, package.GGMLQuantizationType
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    file = package.GGUFWriter(str(path), "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(10_000.0)
    file.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    file.add_vocab_size(config.vocab_size)
    file.add_tokenizer_model("llama")
    file.add_token_list([f"<0x{i - 4:02X}>" if 4 <= i < 260 else f"▁t{i}" for i in range(config.vocab_size)])
    file.add_token_scores([0.0] * config.vocab_size)
    file.add_token_types([1] * config.vocab_size)
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_unk_token_id(3)
    names = package.get_tensor_name_map(package.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        kind = kinds.Q8_0 if ".mlp." in name else kinds.F32
        packed = package.quants.quantize(weight.numpy(), kind)
        weight.copy_(torch.from_numpy(package.quants.dequantize(packed, kind).copy()))
        module, _, own = name.rpartition(".")
        if module.rsplit(".")[-1] in heads:  # the format interleaves the halves of each head
            packed = packed.reshape(heads[module.rsplit(".")[-1]], 2, -1, packed.shape[-1]).swapaxes(1, 2)
            packed = packed.reshape(weight.shape).copy()
        file.add_tensor(f"{names.get_name(module)}.{own}", packed, raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
