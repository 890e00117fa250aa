"""Mixers that we did not write, at the size of our models: two of torch's, one from PyPI.

Fixed before their runs: with as many layers as our softmax model has at preset `laptop`, widths bring each near to its
parameters, 151,265 on fuzzy logic and 102,536 on SRAVEN. None has dropout, which batches of fresh problems do not ask
for; what is not named below is the library's default.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hyla_repro.errors import MissingPackageError
from hyla_repro.training.foreign import ModelSpec

# Layers, and widths of the GRU and of both encoders, by task.
_SIZES = {"fuzzy_logic": (2, 110, 96), "sraven": (4, 65, 56)}


class Guest(nn.Module):
    """A mixer (b, t, m) between a linear embedding and a linear read-out, read at the last tokens."""

    def __init__(self, spec: ModelSpec, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.n_read = spec.n_read
        self.embedding, self.read_out = nn.Linear(spec.n_inputs, width), nn.Linear(width, spec.n_outputs)
        self.mixer = mixer

    def forward(self, inputs: Tensor) -> Tensor:
        mixed = self.mixer(self.embedding(inputs))
        # torch's recurrent modules return their last state as well.
        mixed = mixed[0] if isinstance(mixed, tuple) else mixed
        return self.read_out(mixed[:, -self.n_read :])


class Placed(nn.Module):
    """A mixer of tokens that have a learned vector for their place added: torch's encoder has none."""

    def __init__(self, mixer: nn.Module, n_tokens: int, width: int) -> None:
        super().__init__()
        self.mixer, self.place = mixer, nn.Parameter(0.02 * torch.randn(n_tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x + self.place)


def gru(spec: ModelSpec) -> nn.Module:
    """Return torch's `nn.GRU`, which reads from left to right."""
    n_layers, width, _ = _SIZES[spec.task]
    return Guest(spec, width, nn.GRU(width, width, n_layers, batch_first=True))


def transformer_encoder(spec: ModelSpec) -> nn.Module:
    """Return torch's `nn.TransformerEncoder` with eight heads, norms first, and places learned."""
    n_layers, _, width = _SIZES[spec.task]
    layer = nn.TransformerEncoderLayer(width, 8, 2 * width, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, n_layers, nn.LayerNorm(width), enable_nested_tensor=False)
    return Guest(spec, width, Placed(encoder, spec.n_tokens, width))


def x_transformers(spec: ModelSpec) -> nn.Module:
    """Return the `Encoder` of x-transformers with rotary positions and heads of width 32.

    Raises: MissingPackageError without `hyla-repro[guests]`.
    """
    try:
        from x_transformers import Encoder
    except ImportError:
        raise MissingPackageError("this mixer is of x-transformers: `pip install hyla-repro[guests]`") from None
    n_layers, _, width = _SIZES[spec.task]
    heads = {"attn_dim_head": 32, "heads": round(width / 32), "rotary_pos_emb": True, "verbose": False}
    return Guest(spec, width, Encoder(dim=width, depth=n_layers, ff_mult=2, **heads))


GUESTS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "GRU": gru, "TransformerEncoder": transformer_encoder, "x-transformers": x_transformers,
}  # fmt: skip
