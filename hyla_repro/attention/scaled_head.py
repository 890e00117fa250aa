"""Attention whose heads see windows of tokens instead of tokens, each head of its own size (Attention-SH)."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention.batch_norm import centred, softmax_unless_given
from hyla_repro.attention.functional import attend
from hyla_repro.attention.masks import Bias, Masked, split_masks
from hyla_repro.attention.neighbours import NeighbourAttention
from hyla_repro.attention.windows import DOWN, Weights, average_bias, pool, spread, window_weights, windows_of
from hyla_repro.errors import choose, whole_number


class _Group(NamedTuple):
    """Neighbouring heads of one scale, from `first` on."""

    scale: int
    first: int
    n_heads: int


class ScaledHeadAttention(NeighbourAttention):
    """Attention whose head h sees the means of every scales[h] keys and values, and all queries (Attention-SH).

        head_h = softmax(Q_h pool(K_h)^T / sqrt(d)) pool(V_h)

    The code (b, h, q, k) is that of tokens: a window's weight, shared out among them, so that with the full-length
    values it gives the head's output. Without it (need_weights=False) windows alone are projected and attended to,
    which is what saves time and memory. With a beta, the windows' keys are centred too: Attention-BN+SH.

    With another `variant`, a head's scores are those of windows and every token of one has its window's score; the
    normaliser and the value network then see tokens as ever. So "hyla_sh" among the models' variants is HYLA whose
    code describes, head by head, windows of other sizes; RMSHead has no sum over keys that a share of 1 / s could keep.

    Args:
        arguments, options: those of `HypernetworkAttention`; variant is "softmax" if None is given.
        scales: tokens per window for each head, 1 for an ordinary one.
        down: "mean"; "stride" takes the first visible token instead; "conv" is a depthwise convolution of the keys,
            scale * d weights per head that start as the mean, while values stay means so that the code exists.
        beta: how much of the mean of the windows' keys is taken away, None for no centring.
        rescale: with a beta, also divide by the keys' standard deviation, as `BatchNormAttention` does.
        eps: added to the variance where it divides.
        average_bias: average a score_bias over the windows; it is refused otherwise.

    Raises: ValueError as `HypernetworkAttention` does, and for scales that are not one per head, or below 1;
        NotImplementedError for causal attention, as windows have later tokens, unless all scales are 1.
    Source: Nguyen et al., "A Primal-Dual Framework for Transformers and Neural Networks" (2023).
    Differs: masks, ragged windows, the code of tokens, average_bias and other normalisers are ours.
    """

    def __init__(
        self,
        *arguments: Any,
        scales: Sequence[int],
        down: str = "mean",
        beta: float | None = None,
        rescale: bool = False,
        eps: float = 1e-5,
        average_bias: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **softmax_unless_given(options))
        self.scales = tuple(whole_number("scales", scale, 1, "a window has tokens") for scale in scales)
        if len(self.scales) != self.num_heads:
            raise ValueError(f"scales={list(scales)} has {len(self.scales)} entries, needs num_heads={self.num_heads}")
        if rescale and beta is None:
            raise ValueError("rescale=True needs a beta: 1.0 for a batch norm, 0.0 to divide alone")
        self.down = choose("down", down, DOWN)
        self.beta, self.rescale, self.eps, self.average_bias = beta, rescale, eps, average_bias
        sizes = [(scale, len(list(heads))) for scale, heads in groupby(self.scales)]
        firsts = accumulate((n for _, n in sizes), initial=0)
        self._groups = [_Group(scale, first, n) for (scale, n), first in zip(sizes, firsts, strict=False)]
        like, width = self.out_proj.weight, self.qk_dim // self.num_heads
        self.kernels = nn.ParameterList(
            nn.Parameter(torch.full((group.n_heads, group.scale, width), 1.0, device=like.device, dtype=like.dtype))
            for group in (self._groups if down == "conv" else ())
        )

    def reset_parameters(self) -> None:
        """Draw all weights as `HypernetworkAttention` does, and make a convolution a mean."""
        super().reset_parameters()
        for kernel in self.kernels:
            nn.init.ones_(kernel)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = False,
        is_causal: bool = False,
        *,
        score_bias: Float[Tensor, "#b #h #q #k"] | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, and return the outputs with the code of tokens (b, h, q, k), or None and by windows alone.

        Args:
            options: code_scale and cache, as `HypernetworkAttention.forward` has them.

        Raises: NotImplementedError for causal attention; ValueError for a score_bias without average_bias, and as
            `BatchNormAttention` does.
        """
        if score_bias is not None and not self.average_bias:
            raise ValueError(
                "score_bias is of tokens and scores are of windows: average_bias=True averages it over them"
            )
        if not self._by_windows(query, key, value, need_weights, is_causal or attn_mask is not None, options):
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal,
                score_bias=score_bias, **options,
            )  # fmt: skip
        key, value, _ = self._clean(query, key, value, key_padding_mask, attn_mask, is_causal)
        queries, keys, values = self._batches_first(query, key, value)
        parts = self._coarse(queries, keys, values, self._masks(queries, keys, key_padding_mask, score_bias))
        output = self.out_proj(torch.cat([rearrange(mixed, "b h q d -> b q (h d)") for mixed, _ in parts], dim=-1))
        if query.ndim == 2:
            return output[0], None
        return output if self.batch_first else rearrange(output, "b q m -> q b m"), None

    def coarse_code(
        self,
        query: Float[Tensor, "b q m"],
        key: Float[Tensor, "b k m_key"],
        key_padding_mask: Tensor | None = None,
        score_bias: Bias = None,
    ) -> list[Float[Tensor, "b q _"]]:
        """Return each head's code of its windows, (b, q, n), of tokens with the batch first.

        Raises: ValueError for a variant whose windows have no code of their own.
        """
        if self.normalizer != "softmax":
            raise ValueError(f"normalizer={self.normalizer!r} makes codes of tokens alone: use softmax")
        key, _, _ = self._clean(query, key, key, key_padding_mask, None, False)
        value = key if self.vdim == self.kdim else key.new_zeros(*key.shape[:2], self.vdim)
        parts = self._coarse(query, key, value, self._masks(query, key, key_padding_mask, score_bias))
        return [code for _, codes in parts for code in codes.unbind(1)]

    def attention_flops(self, n_tokens: int) -> int:
        """Return the floating-point operations of the matrix products of a sequence's forward pass, by windows."""
        d_qk, d_v, m = self.qk_dim // self.num_heads, self.head_dim, self.embed_dim
        total = n_tokens * m * (self.qk_dim + self.v_dim)
        for scale in self.scales:
            windows = math.ceil(n_tokens / scale)
            total += windows * (self.kdim * d_qk + self.vdim * d_v) + n_tokens * windows * (d_qk + d_v)
        return 2 * total

    def _by_windows(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool, causal: bool, options: dict[str, Any]
    ) -> bool:
        plain = (self.normalizer, self.value_network, self.key_reduction) == ("softmax", "linear", "sum")
        scaled = any(x is not None for x in options.values()) or (self.dropout > 0 and self.training)
        nested = query.is_nested or key.is_nested or value.is_nested
        return plain and not (need_weights or scaled or nested or causal)

    def _clean(self, *arguments: Any) -> tuple[Tensor, Tensor, bool]:
        key, value, causal = super()._clean(*arguments)
        if causal and (set(self.scales) != {1} or self.beta is not None):
            raise NotImplementedError(
                f"causal attention with scales={list(self.scales)}, beta={self.beta}: windows, and means of keys, tell "
                "queries of later tokens; use scales of 1 and no beta, or BatchNormAttention(stats='causal')"
            )
        return key, value, causal

    def _masks(self, query: Tensor, key: Tensor, padding: Tensor | None, score_bias: Bias) -> tuple[Bias, Masked]:
        if padding is not None and padding.ndim == 1:
            padding = rearrange(padding, "k -> 1 k")
        shape = (len(query), self.num_heads, query.shape[1], key.shape[1])
        bias, masked = split_masks(None, padding, False, shape, query.device)
        return score_bias if bias is None else bias if score_bias is None else bias + score_bias, masked

    def _pool_keys(self, index: int, keys: Float[Tensor, "b h t d"], weights: Weights) -> Float[Tensor, "b h n d"]:
        """Return the keys of the windows of a group of heads."""
        if self.down != "conv":
            return pool(keys, weights)
        return einsum(windows_of(keys, weights.shape[-1]) * weights.unsqueeze(-1), self.kernels[index],
                      "b h n s d, h s d -> b h n d")  # fmt: skip

    def _centre(self, queries: Tensor, pooled: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
        if self.beta is None:
            return queries, pooled
        empty = weights.sum(-1) == 0
        return centred(queries, pooled, self.beta, rescale=self.rescale, eps=self.eps, hidden=empty)

    def _prepare(
        self, queries: Tensor, keys: Tensor, bias: Bias, masked: Masked
    ) -> tuple[Tensor, Tensor, Bias, Masked]:
        """Give each token its window's key, and under softmax its share of its window's weight."""
        n_keys = keys.shape[2]
        # The last query sees all keys but padding, causal or not.
        hidden = None if masked is None else masked[:, :, -1]
        parts = []
        for index, (scale, first, n_heads) in enumerate(self._groups):
            heads = slice(first, first + n_heads)
            weights = window_weights(n_keys, scale, hidden, self.down, keys)
            if weights.ndim == 2:
                weights = rearrange(weights, "n s -> 1 1 n s")
            pooled = self._pool_keys(index, keys[:, heads], weights)
            query, pooled = self._centre(queries[:, heads], pooled, weights)
            share = rearrange(weights, "b h n s -> b h 1 (n s)")[..., :n_keys]
            added = torch.zeros_like(share)
            if self.normalizer == "softmax":
                added = share.masked_fill(share == 0, 1.0).log()
            if bias is not None:
                own = bias if bias.shape[1] == 1 else bias[:, heads]
                added = added + average_bias(own, weights, n_keys, back=True)
            parts.append((query, spread(pooled, scale, n_keys), added.expand(-1, n_heads, -1, -1),
                          (share == 0).expand(-1, n_heads, -1, -1)))  # fmt: skip
        queries, keys, bias, absent = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return queries, keys, bias, absent if masked is None else absent | masked

    def _coarse(
        self, query: Tensor, key: Tensor, value: Tensor, masks: tuple[Bias, Masked]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for each group of heads, what they mix and their code of windows."""
        bias, masked = masks
        hidden = None if masked is None else masked[:, 0, 0]
        for index, (scale, first, n_heads) in enumerate(self._groups):
            weights = window_weights(key.shape[1], scale, hidden, self.down, key)
            shares = rearrange(weights, "n s -> 1 1 n s" if weights.ndim == 2 else "b n s -> b 1 n s")
            # A mean commutes with a projection, so that windows alone need one; a convolution of keys does not.
            windows = [pool(x, weights) for x in ((value,) if self.down == "conv" else (key, value))]
            queries = self._project_heads(0, query, first, n_heads)
            values = self._project_heads(2, windows[-1], first, n_heads)
            if self.down == "conv":
                keys = self._pool_keys(index, self._project_heads(1, key, first, n_heads), shares)
            else:
                keys = self._project_heads(1, windows[0], first, n_heads)
            queries, keys = self._centre(queries, keys, shares)
            own = None
            if bias is not None:
                own = bias if bias.shape[1] == 1 else bias[:, first : first + n_heads]
                own = average_bias(own, shares, key.shape[1], back=False)
            # Without padding no window is empty, and a mask of nothing costs as much as the scores.
            absent = None if hidden is None else rearrange(shares.sum(-1) == 0, "b h n -> b h 1 n")
            mixed, code = attend(queries, keys, values, own, absent, normalizer=self.normalizer,
                                 value_network=self.value_network, activation=self.activation)  # fmt: skip
            assert code is not None, "without blocks there is a code"
            yield mixed, code

    def _project_heads(self, which: int, x: Float[Tensor, "b t m"], first: int, n_heads: int) -> Tensor:
        """Return the queries (0), keys (1) or values (2) of some heads."""
        weight, bias = self._in_weights()[which], self._in_biases()[which]
        width = len(weight) // self.num_heads
        rows = slice(first * width, (first + n_heads) * width)
        projected = F.linear(x, weight[rows], None if bias is None else bias[rows])
        return rearrange(projected, "b t (h d) -> b h t d", h=n_heads)
