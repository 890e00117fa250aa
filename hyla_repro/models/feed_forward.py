"""Feed-forward layers: GELU, gated, and a mixture of experts (paper, appendix and Table A1)."""

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.models.config import TransformerConfig


class FeedForward(nn.Module):
    """GELU feed-forward layer (tanh approximation, as in the release)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)

    def forward(self, x: Float[Tensor, "b t m"]) -> Float[Tensor, "b t m"]:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """Gated feed-forward layer without biases (language modelling)."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Float[Tensor, "b t m"]) -> Float[Tensor, "b t m"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class MixtureOfExperts(nn.Module):
    """Feed-forward layers of which each token uses the few that a linear router scores highest.

    A token's output is the sum of its experts' outputs, weighted by the softmax over their scores. Every expert is
    computed for every token, which keeps all shapes fixed and makes a step on fuzzy logic three times as long.

    Args:
        n_experts: E, GELU layers of width d_ff each.
        per_token: how many of them a token uses.

    Source: paper, Table A1: top-2 of 4, softmax-normalised. Neither paper nor release says more, so that the softmax
    is over the chosen scores alone, the router has no bias and nothing balances the load is our reading (D13).
    """

    def __init__(self, d_model: int, d_ff: int, n_experts: int, per_token: int) -> None:
        super().__init__()
        self.per_token = per_token
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(d_model, d_ff) for _ in range(n_experts))

    def gates(self, x: Float[Tensor, "b t m"]) -> Float[Tensor, "b t e"]:
        """Return each expert's weight for each token: 0 for those not chosen, summing to 1."""
        scores = self.router(x)
        least = scores.topk(self.per_token, dim=-1).values[..., -1:]
        return scores.masked_fill(scores < least, -torch.inf).softmax(-1)

    def forward(self, x: Float[Tensor, "b t m"]) -> Float[Tensor, "b t m"]:
        gates = self.gates(x).unsqueeze(-1)
        return sum((gates[..., e, :] * expert(x) for e, expert in enumerate(self.experts)), torch.zeros_like(x))

    def imbalance(self, x: Float[Tensor, "b t m"]) -> Float[Tensor, ""]:
        """Return the load-balancing loss: 1 where tokens spread evenly over the experts, up to E where one takes all.

        E times the sum over experts of the share of choices that fell on it times its mean softmax over all scores.
        Source: Fedus et al., Switch Transformers (2022), for more than one expert per token.
        """
        chosen = reduce((self.gates(x) > 0).to(x.dtype), "b t e -> e", "mean") / self.per_token
        probability = reduce(self.router(x).softmax(-1), "b t e -> e", "mean")
        return len(self.experts) * (chosen * probability).sum()


def build_feed_forward(config: TransformerConfig) -> nn.Module:
    """Return the feed-forward layer that a configuration names."""
    if config.n_experts is not None and config.experts_per_token is not None:
        return MixtureOfExperts(config.d_model, config.d_ff, config.n_experts, config.experts_per_token)
    return {"gelu": FeedForward, "swiglu": SwiGLU}[config.feed_forward](config.d_model, config.d_ff)
