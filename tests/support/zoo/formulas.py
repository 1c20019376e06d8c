"""What single model types compute otherwise than `kinds.py` has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from transformers import AutoModel, Gemma3nVisionConfig, PreTrainedModel

from support.zoo.kinds import Fire, Glu, gelu, gelu_tanh, relu, relu_squared, silu


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


def top_quarter(z: Tensor) -> Tensor:
    """Only what exceeds the third quartile of a normal distribution with a token's mean and deviation passes."""
    return gelu_tanh(relu(z - z.mean(-1, keepdim=True) - 0.6744897501960817 * z.std(-1, keepdim=True, unbiased=False)))


def scaled(factor: float) -> Glu:
    """FalconH1: the gate is multiplied by a number of the configuration before its activation."""
    return lambda gate, up: (silu(gate * factor), up)


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


def zamba2_mlp(module: Any, fire: Fire, hidden: Tensor, layer_idx: int) -> Tensor:
    """A fused gated MLP, the low-rank adapter of the block that calls it added to its first weight."""
    tokens = hidden.flatten(0, -2)
    inner, outer = module.gate_up_proj_adapter_list[module.layer_dic[layer_idx]]
    weight = module.gate_up_proj.weight.detach() + outer.weight.detach() @ inner.weight.detach()
    gate, up = (tokens @ weight.T).chunk(2, dim=-1)
    changed = fire(None, tokens, gate, gelu, torch.arange(len(tokens)))
    return ((changed * up) @ module.down_proj.weight.detach().T).view_as(hidden)


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


class NoVisionConfig(Gemma3nVisionConfig):
    """The real vision tower needs timm, and no text runs through it."""

    model_type = "gemma3n_no_vision"


class NoVision(PreTrainedModel):
    config_class = NoVisionConfig

    def __init__(self, config: NoVisionConfig) -> None:
        super().__init__(config)
        self.post_init()


AutoModel.register(NoVisionConfig, NoVision, exist_ok=True)
