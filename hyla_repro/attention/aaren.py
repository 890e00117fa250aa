"""Attention with a learned query (Aaren): a recurrent network over keys and values, at once, in blocks or by steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention.cache import Cache
from hyla_repro.attention.masks import Bias, Masked, split_masks
from hyla_repro.attention.neighbours import NeighbourAttention
from hyla_repro.attention.projections import Heads
from hyla_repro.attention.scan import Sums, prefix_attention
from hyla_repro.errors import choose, whole_number


class LearnedQueryAttention(NeighbourAttention):
    """`HypernetworkAttention` whose query is a parameter, the same for all tokens; of `query` only the length counts.

    With `variant="hyla"` and causal, the code of a pair depends on its key alone, as RMSHead looks at no other key: the
    layer is a running sum of a network of each token.

    Args:
        arguments, options: those of `HypernetworkAttention`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        weight = self.out_proj.weight
        self.query_token = nn.Parameter(torch.empty(self.embed_dim, device=weight.device, dtype=weight.dtype))
        nn.init.normal_(self.query_token)

    def reset_parameters(self) -> None:
        """Draw all weights as `HypernetworkAttention` does, and the query token like the output of a LayerNorm."""
        super().reset_parameters()
        nn.init.normal_(self.query_token)

    def _query(self) -> Float[Tensor, "h d"]:
        return rearrange(F.linear(self.query_token, self._in_weights()[0], self._in_biases()[0]), "(h d) -> h d",
                         h=self.num_heads)  # fmt: skip

    def _key_values(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        weights, biases = self._in_weights()[1:], self._in_biases()[1:]
        keys, values = map(F.linear, (key, value), weights, biases)
        return self._heads(keys), self._heads(values)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        queries = repeat(self._query(), "h d -> b h q d", b=query.shape[0], q=query.shape[1])
        return queries, *self._key_values(key, value)


class AarenState(NamedTuple):
    """All that an Aaren remembers of the tokens so far, of a size that does not depend on their number.

    Args:
        log_mass: logarithm of the sum of exp(score), relative to the newest token under position_bias="alibi".
        mean: each head's output at the newest token.
    """

    log_mass: Float[Tensor, "b h"]
    mean: Float[Tensor, "b h d"]

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return sum(part.nbytes for part in self)


class Aaren(LearnedQueryAttention):
    """Causal softmax attention whose query is a learned token: output t is that query's over the tokens up to t.

        s_k = <W^query q, W^key x_k> / sqrt(d)
        o_t = sum_{k<=t} exp(s_k) W^value x_k / sum_{k<=t} exp(s_k)

    So a layer is a recurrent network, whose state has h (d + 1) numbers. `forward` with the latent code needs memory
    t^2; without (need_weights=False) it scans the sequence, all at once or in blocks; `extend` goes on from a state,
    `step` by one token. All give the same outputs. States are float32 or wider, whatever the tokens are.

    Args:
        arguments, options: those of `HypernetworkAttention` without its variant.
        position_bias: "alibi" adds -2^(-8 i / h) (t - k) to the scores of head i = 1 ... h, padding counted. Only terms
            of the key alone, which this one amounts to, keep the recurrence; or give tokens their positions before.
        block: how many tokens a scan takes at once, all if None; its memory grows with them.

    Raises: ValueError as `HypernetworkAttention` does, for an unknown position_bias, and for a block below 1.
    Source: Feng et al., "Attention as an RNN" (2024).
    Differs: the scale 1 / sqrt(d), which the query could learn; ours are the unit variance of a new query token, which
        is the size of a LayerNorm's output, and position_bias. The query token is a vector, so that no weight decay
        takes it.
    """

    def __init__(
        self, *arguments: Any, position_bias: str | None = None, block: int | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, variant="softmax", **options)
        self.position_bias = None if position_bias is None else choose("position_bias", position_bias, ["alibi"])
        self.block = None if block is None else whole_number("block", block, 1, "a block has tokens")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = False,
        is_causal: bool = True,
        *,
        score_bias: Float[Tensor, "#b #h #q #k"] | None = None,
        code_scale: Float[Tensor, "#b #h #q #k"] | None = None,
        rotate: Callable[[Heads], Heads] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, and return the outputs with the code (b, h, q, k); for need_weights=False by a scan, without it.

        Args:
            query: its content has no effect; the outputs are those of as many last tokens of key as it has.
            attn_mask: the causal mask, as torch's layers pass it, and no other.
            score_bias: (#b, #h, 1, k), a term of the key alone.
            code_scale, cache: as in `HypernetworkAttention`; like dropout in training, they need the code in any case.

        Raises: ValueError for is_causal=False without an attn_mask, another attn_mask, a score_bias that depends on the
            query, a rotate, and more queries than keys.
        """
        self._refuse_rotation(rotate)
        if not is_causal and attn_mask is None:
            raise ValueError("is_causal=False is not defined for Aaren, whose output t is over the tokens up to t")
        if score_bias is not None and score_bias.shape[2] != 1:
            raise ValueError(
                f"score_bias has shape {tuple(score_bias.shape)}, Aaren takes (#b, #h, 1, k): a term of query and key, "
                "such as a relative position bias, is no recurrence; give tokens absolute positions, or "
                "position_bias='alibi'"
            )
        dense = need_weights or code_scale is not None or cache is not None or (self.dropout > 0 and self.training)
        if dense or query.is_nested or key.is_nested or value.is_nested:
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal,
                score_bias=score_bias, code_scale=code_scale, cache=cache,
            )  # fmt: skip
        key, value, _ = self._clean(query, key, value, key_padding_mask, attn_mask, is_causal)
        queries, key, value = self._batches_first(query, key, value)
        if queries.shape[1] > key.shape[1]:
            raise ValueError(f"{queries.shape[1]} queries are more than {key.shape[1]} keys: outputs are those of keys")
        mean, _ = self._scan(key, value, self._masks(key, key_padding_mask, score_bias), None)
        output = self.out_proj(rearrange(mean[:, :, -queries.shape[1] :], "b h t d -> b t (h d)"))
        if query.ndim == 2:
            return output[0], None
        return output if self.batch_first else rearrange(output, "b t m -> t b m"), None

    def init_state(self, batch: int) -> AarenState:
        """Return the state before the first token."""
        weight = self.out_proj.weight
        wide, shape = torch.promote_types(weight.dtype, torch.float32), (batch, self.num_heads)
        log_mass = torch.full(shape, torch.finfo(wide).min, dtype=wide, device=weight.device)
        return AarenState(log_mass, log_mass.new_zeros(*shape, self.head_dim))

    def extend(
        self, x: Float[Tensor, "b t m"], state: AarenState | None = None, key_padding_mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "b t m"], AarenState]:
        """Return the outputs of new tokens, keys and values alike, and the state after them.

        Args:
            x: with the batch first.
            state: after earlier tokens, None for none.
            key_padding_mask: (b, t), True or -inf where a token is padding.
        """
        masks = self._masks(x, key_padding_mask, None)
        if masks[1] is not None:
            x = x.masked_fill(rearrange(masks[1], "b 1 1 t -> b t 1"), 0.0)
        mean, state = self._scan(x, x, masks, state)
        return self.out_proj(rearrange(mean, "b h t d -> b t (h d)")), state

    def step(self, x: Float[Tensor, "b m"], state: AarenState) -> tuple[Float[Tensor, "b m"], AarenState]:
        """Return the output of one new token and the state after it: a leaky mean, whose gate is a number per head.

            g = sigmoid(s - L)
            mean <- mean + g (v - mean)
            L <- log(exp(L) + exp(s))

        s and v are the token's score and value, L is the state's log_mass.
        """
        token = rearrange(x, "b m -> b 1 m")
        keys, values = self._key_values(token, token)
        score, value = self._scores(keys)[..., 0], values[..., 0, :]
        log_mass = state.log_mass
        if self.position_bias is not None:
            log_mass = log_mass - self._slopes(score)
        gate = rearrange((score - log_mass).sigmoid(), "b h -> b h 1")
        mean = state.mean + gate * (value.to(state.mean.dtype) - state.mean)
        output = self.out_proj(rearrange(mean, "b h d -> b (h d)").to(value.dtype))
        return output, AarenState(torch.logaddexp(log_mass, score), mean)

    def _masks(self, key: Tensor, padding: Tensor | None, score_bias: Bias) -> tuple[Bias, Masked]:
        """Return what is added to the scores, (#b, #h, 1, k), and which keys are hidden, (b, 1, 1, k)."""
        if padding is not None and padding.ndim == 1:
            padding = rearrange(padding, "k -> 1 k")
        bias, masked = split_masks(None, padding, False, (len(key), self.num_heads, 1, key.shape[1]), key.device)
        bias = score_bias if bias is None else bias if score_bias is None else bias + score_bias
        return None if bias is None else bias.expand(*bias.shape[:3], key.shape[1]), masked

    def _scan(
        self, key: Tensor, value: Tensor, masks: tuple[Bias, Masked], state: AarenState | None
    ) -> tuple[Float[Tensor, "b h t d"], AarenState]:
        """Return the outputs of every head, block by block, and the state after them."""
        bias, masked = (None if x is None else rearrange(x, "b h 1 k -> b h k") for x in masks)
        state = self.init_state(len(key)) if state is None else state
        means = []
        size = self.block or key.shape[1]
        for start in range(0, key.shape[1], size):
            part = slice(start, start + size)
            keys, values = self._key_values(key[:, part], value[:, part])
            scores, n_tokens = self._scores(keys), keys.shape[2]
            if bias is not None:
                scores = scores + bias[..., part]
            mass = rearrange(state.log_mass, "b h -> b h 1 1")
            before = Sums(mass, torch.ones_like(mass), rearrange(state.mean, "b h d -> b h 1 d"))
            slopes = None if self.position_bias is None else rearrange(self._slopes(scores), "h -> h 1")
            if slopes is not None:
                scores = scores + slopes * torch.arange(1, n_tokens + 1, device=scores.device)
            mean, sums = prefix_attention(scores, values, None if masked is None else masked[..., part], before)
            log_mass = sums.log_mass()
            if slopes is not None:
                log_mass = log_mass - slopes * n_tokens
            means.append(mean)
            state = AarenState(log_mass[..., 0], sums.mean()[..., 0, :])
        return torch.cat(means, dim=2), state

    def _scores(self, keys: Float[Tensor, "b h t d"]) -> Float[Tensor, "b h t"]:
        wide = torch.promote_types(keys.dtype, torch.float32)
        scale = keys.shape[-1] ** -0.5
        return einsum(self._query().to(wide) * scale, keys.to(wide), "h d, b h t d -> b h t")

    def _slopes(self, like: Tensor) -> Float[Tensor, " h"]:
        heads = torch.arange(1, self.num_heads + 1, dtype=like.dtype, device=like.device)
        return (heads * (-8 / self.num_heads)).exp2()

    def _prepare(
        self, queries: Tensor, keys: Tensor, bias: Bias, masked: Masked
    ) -> tuple[Tensor, Tensor, Bias, Masked]:
        if self.position_bias is None:
            return queries, keys, bias, masked
        n_keys = keys.shape[2]
        # Up to a term of the query, which softmax cancels.
        steps = einsum(
            self._slopes(keys), torch.arange(1 - n_keys, 1, device=keys.device).to(keys.dtype), "h, k -> h k"
        )
        steps = rearrange(steps, "h k -> 1 h 1 k")
        return queries, keys, steps if bias is None else bias + steps, masked
