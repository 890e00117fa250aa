"""Dropout of attention's latent codes, drawn from counters."""

import torch
from jaxtyping import Float
from torch import Tensor

from hyla_repro.counter_rng import CounterRNG
from hyla_repro.models.config import TransformerConfig


def dropout_scales(
    model: TransformerConfig, rate: float, seed: int | Tensor, step: int | Tensor, device: torch.device | str = "cpu"
) -> Float[Tensor, "l q k"] | None:
    """Return the factors on the codes: 0 with the dropout rate, else 1 / (1 - rate); None for rate 0.

    One mask per layer, shared by the whole batch and all heads, as in the release.
    """
    if rate == 0.0:
        return None
    shape = (model.n_layers, model.n_positions, model.n_positions)
    draw = CounterRNG(seed, "attention_dropout").uniform(step, shape, device)
    return (draw >= rate).to(torch.float32) / (1.0 - rate)
