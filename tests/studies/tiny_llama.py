"""A LLaMA in a page of torch, with the names of its modules and weights in `transformers`, for tests without it."""

from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Grouped-query attention, causal, with rotary positions."""

    def __init__(self, d_model: int, n_heads: int, n_groups: int) -> None:
        super().__init__()
        self.n_heads, self.n_groups, width = n_heads, n_groups, d_model // n_heads
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(d_model, n_groups * width, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        query = rotated(rearrange(self.q_proj(hidden_states), "b t (h d) -> b h t d", h=self.n_heads))
        key, value = (
            rearrange(project(hidden_states), "b t (g d) -> b g t d", g=self.n_groups)
            for project in (self.k_proj, self.v_proj)
        )
        shared = {"r": self.n_heads // self.n_groups}
        key, value = (repeat(x, "b g t d -> b (g r) t d", **shared) for x in (rotated(key), value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(rearrange(mixed, "b h t d -> b t (h d)")), None


def rotated(x: Tensor) -> Tensor:
    """Turn each channel of the first half with its partner in the second."""
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[-2]).float(), 10000.0 ** (-torch.arange(half) / half))
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(d_model, d_ff, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """The authors' calls: attention by keyword, with more than the output returned."""

    def __init__(self, d_model: int, n_heads: int, n_groups: int, d_ff: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(d_model, eps=1e-6)
        self.self_attn = Attention(d_model, n_heads, n_groups)
        self.post_attention_layernorm = nn.RMSNorm(d_model, eps=1e-6)
        self.mlp = MLP(d_model, d_ff)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = x + self.self_attn(hidden_states=self.input_layernorm(x))[0]
        return (x + self.mlp(self.post_attention_layernorm(x)),)


class TinyLlama(nn.Module):
    """Embed, apply blocks, normalise, read out."""

    def __init__(self, vocabulary: int, n_layers: int, **sizes: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, sizes["d_model"])
        self.layers = nn.ModuleList(Block(**sizes) for _ in range(n_layers))
        self.norm = nn.RMSNorm(sizes["d_model"], eps=1e-6)
        self.lm_head = nn.Linear(sizes["d_model"], vocabulary, bias=False)

    def forward(self, input_ids: Tensor, **_: Any) -> Tensor:
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            (x,) = layer(x)
        return self.lm_head(self.norm(x))
