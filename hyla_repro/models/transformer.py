"""The transformer of all experiments: pre-LayerNorm blocks around hypernetwork attention (paper, appendix)."""

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention import KeyValueCache
from hyla_repro.counter_rng import CounterRNG
from hyla_repro.errors import expect_shape
from hyla_repro.models.attention import build_attention
from hyla_repro.models.config import TransformerConfig
from hyla_repro.models.feed_forward import MixtureOfExperts, build_feed_forward
from hyla_repro.models.position import AbsolutePosition, build_position


class Block(nn.Module):
    """z = x + attention(LN(x)), y = z + feed_forward(LN(z))."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.causal = config.causal
        self.norm1 = nn.LayerNorm(config.d_model, eps=1e-6)
        self.position = build_position(config)
        self.attention = build_attention(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=1e-6)
        self.feed_forward = build_feed_forward(config)

    def forward(
        self,
        x: Float[Tensor, "b t m"],
        last: int | None = None,
        code_scale: Tensor | None = None,
        cache: KeyValueCache | None = None,
        padding: Bool[Tensor, "b k"] | None = None,
    ) -> tuple[Float[Tensor, "b q m"], Float[Tensor, "b h q k"], Float[Tensor, ""]]:
        """Return outputs, latent code, and the imbalance of the experts, 0 without any."""
        n_tokens = x.shape[1] + (0 if cache is None else len(cache))
        position, place = self.position, {}
        if position is not None:
            place[position.argument] = position(n_tokens, last or x.shape[1])
        normed = self.norm1(x)
        # Slicing keeps `query is key` where every token is read, so that one matrix product projects all three.
        query, residual = (normed, x) if last is None else (normed[:, -last:], x[:, -last:])
        mixed, code = self.attention(
            query, normed, normed, key_padding_mask=padding, is_causal=self.causal, code_scale=code_scale, cache=cache,
            **place,
        )  # fmt: skip
        z = residual + mixed
        normed = self.norm2(z)
        feed_forward = self.feed_forward
        imbalance = feed_forward.imbalance(normed) if isinstance(feed_forward, MixtureOfExperts) else z.new_zeros(())
        return z + feed_forward(normed), code, imbalance


class Transformer(nn.Module):
    """Embed, apply n_layers blocks, normalise, read out. Weights are zero until `initialize` or a load.

    Args:
        config: sizes and kind.

    Source: paper, appendix on architectures; authors' models/transformer.py.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding: nn.Linear | nn.Embedding
        if config.n_inputs is not None and config.n_outputs is not None:
            self.embedding = nn.Linear(config.n_inputs, config.d_model)
            self.read_out = nn.Linear(config.d_model, config.n_outputs)
        elif config.vocab_size is not None:
            self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position = AbsolutePosition(config.d_model, config.n_positions) if config.absolute else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=1e-6)
        self.initialize(seed=0)

    @torch.no_grad()
    def initialize(self, seed: int) -> "Transformer":
        """Draw all weights from the counter-based stream of this seed; the same on every device and version.

        Kernels: truncated normal with variance 1 / fan-in. Position tables: normal, std 1 / sqrt(buckets).
        Embeddings of tokens and of absolute positions: normal, variance 1 / width. Learned query tokens:
        normal, variance 1, as a LayerNorm's output has. Biases 0, LayerNorm scales 1.
        Source: Flax's default initialisers, which the release uses.
        """
        for name, parameter in self.named_parameters():
            rng = CounterRNG(seed, f"init/{name}")
            shape = tuple(parameter.shape)
            if name.endswith("query_token"):
                parameter.copy_(rng.normal(0, shape))
            elif parameter.ndim == 1:
                parameter.fill_(1.0 if name.rsplit(".", 2)[-2].startswith("norm") and name.endswith("weight") else 0.0)
            elif name.endswith("position.table") or (name == "embedding.weight" and self.config.vocab_size is not None):
                parameter.copy_(rng.normal(0, shape) * shape[1] ** -0.5)
            else:
                # HYLA+'s middle layer is summed over heads, so its fan-in counts them (our reading, D8).
                fan_in = shape[0] * shape[1] if name.endswith("inner_weight") else shape[1]
                parameter.copy_(rng.truncated_normal(0, shape) * fan_in**-0.5)
        return self

    def forward(
        self,
        inputs: Tensor,
        return_codes: bool = False,
        last: int | None = None,
        code_scales: Float[Tensor, "l q k"] | None = None,
        return_imbalance: bool = False,
        caches: Sequence[KeyValueCache] | None = None,
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Tensor | tuple[Tensor, list[Tensor]] | tuple[Tensor, Tensor]:
        """Map inputs (b, t, n_inputs), or tokens (b, t), to outputs (b, q, n_outputs).

        Args:
            return_codes: also return the latent codes of every layer.
            last: read out only this many last tokens, all if None. The final block then computes only their queries,
                which changes nothing but the time: a two-layer model read at one token needs half the work.
            code_scales: one factor per layer and pair on the normalised codes (dropout), shared by batch and heads.
            return_imbalance: also return the load-balancing loss of the experts, summed over layers.
            caches: one KeyValueCache per layer, of a causal model. Inputs then go on with the text that they hold, and
                join it.
            padding: True where a sequence has ended: no token attends to what is there, not even in its own place.

        Returns: outputs; with return_codes also one code per layer, the final one of the read-out queries only; with
            return_imbalance a scalar instead.
        Raises: ValueError for inputs of the wrong width, more tokens than n_positions, `last` beyond the tokens, or
            caches that do not fit, or are given with padding.
        """
        expected = (3, self.config.n_inputs) if self.config.vocab_size is None else (2, inputs.shape[-1])
        if (inputs.ndim, inputs.shape[-1]) != expected:
            raise ValueError(f"inputs of shape {tuple(inputs.shape)} do not fit: need {self._input_shape()}")
        if last is not None and not 1 <= last <= inputs.shape[1]:
            raise ValueError(f"last={last} is out of range: these inputs have 1 to {inputs.shape[1]} tokens to read")
        if padding is not None:
            expect_shape("padding", padding.shape, inputs.shape[:2], "(batch, token)")
        if caches is not None:
            if padding is not None:
                raise ValueError("padding with caches: texts of a cache have one length; give one of the two")
            self._check_caches(caches)
        if last == inputs.shape[1]:
            last = None
        x, codes, imbalances = self.embedding(inputs), [], []
        if self.position is not None:
            n_tokens = x.shape[1] + (len(caches[0]) if caches else 0)
            x = x + self.position(n_tokens, x.shape[1])
        for index, block in enumerate(self.blocks):
            queries = last if index == len(self.blocks) - 1 else None
            scale = None if code_scales is None else rearrange(code_scales[index], "q k -> 1 1 q k")
            if scale is not None and queries is not None:
                scale = scale[:, :, -queries:]
            x, code, imbalance = block(x, queries, scale, None if caches is None else caches[index], padding)
            codes.append(code)
            imbalances.append(imbalance)
        x = self.norm(x)
        if self.config.vocab_size is None:
            outputs = self.read_out(x)
        else:
            outputs = F.linear(x, self.embedding.weight) * self.config.d_model**-0.5
        if return_imbalance:
            return outputs, torch.stack(imbalances).sum()
        return (outputs, codes) if return_codes else outputs

    def _check_caches(self, caches: Sequence[KeyValueCache]) -> None:
        if not self.config.causal:
            raise ValueError("caches need a model with causal=True: in this one, later tokens change the earlier ones")
        lengths, n_layers = [len(cache) for cache in caches], len(self.blocks)
        if not len(lengths) == len(set(map(id, caches))) == n_layers or len(set(lengths)) > 1:
            raise ValueError(
                f"caches of lengths {lengths} do not fit: give {n_layers} KeyValueCache of one text, one for each layer"
            )

    def _input_shape(self) -> str:
        if self.config.vocab_size is None:
            return f"(batch, token, n_inputs={self.config.n_inputs})"
        return "(batch, token) of token numbers"


def load_model(weights: Path | bytes, config: TransformerConfig) -> Transformer:
    """Return a trained Transformer from a safetensors file, as `data/models/` and finished runs have, or its bytes."""
    model = Transformer(config)
    model.load_state_dict(safetensors.torch.load(weights if isinstance(weights, bytes) else weights.read_bytes()))
    return model.eval()
