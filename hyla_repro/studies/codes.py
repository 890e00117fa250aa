"""Latent codes of trained models, for every study: collecting them, the probe, and the plane they are laid out in."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hyla_repro.experiment import Experiment
from hyla_repro.training.stack import CHUNK, Stack

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def trained(runs: Sequence[Experiment], weights: Sequence[bytes], device: str = "cpu") -> Stack:
    """Return a stack of runs of one shape with these safetensors weights."""
    stack = Stack(runs, device)
    for index, content in enumerate(weights):
        stack.load_weights(index, content)
    return stack


def with_control(runs: Sequence[Experiment], weights: Sequence[bytes], device: str) -> dict[str, Stack]:
    """Return the trained models, and the same before their first step, which are the control of whatever is read."""
    return {"trained": trained(runs, weights, device), "untrained": Stack(runs, device)}


def own_codes(
    stack: Stack, split: str, sequences: int, first_step: int = 0
) -> tuple[Float[Tensor, "run b token l h"], Any]:
    """Return, for every run of a stack, the codes of the tokens that are read out, each attending to itself.

    In the first layer, unless a softmax lets the other keys in, this code depends on the query token alone, which
    shows nothing of what is asked for: with a fixed query, or on SRAVEN, it is a constant, and a control for any probe.

    Args:
        split: a split of the task.
        first_step: where in the stream to begin; each step holds up to 500 sequences.

    Returns: codes, and the batch they are of with the run axis in front, both on the CPU.
    """
    parts = [
        stack.codes(split, step, min(CHUNK, sequences - start))
        for step, start in enumerate(range(0, sequences, CHUNK), first_step)
    ]
    codes = torch.cat([codes.cpu() for codes, _ in parts], dim=1)
    fields = zip(*(batch for _, batch in parts), strict=True)
    return codes, type(parts[0][1])(*(torch.cat([piece.cpu() for piece in field], dim=1) for field in fields))


def as_features(codes: Float[Tensor, "..."]) -> np.ndarray:
    """Return codes as a probe takes them, rounded, so that a constant stays one when its last bits differ by batch."""
    return np.round(codes.double().numpy(), 5)


def linear_probe(class_weight: str | None = None) -> "Pipeline":
    """Return a logistic regression on standardised codes, the probe of every decoding figure (D6, D17)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, class_weight=class_weight))


def in_the_plane(codes: Float[np.ndarray, "n h"], seed: int) -> Float[np.ndarray, "n 2"]:
    """Return t-SNE coordinates of codes, the farthest at 100; all zero where every code is the same."""
    from sklearn.manifold import TSNE

    if not np.ptp(codes, axis=0).any():
        return np.zeros((len(codes), 2))
    plane = TSNE(init="pca", perplexity=30, random_state=seed).fit_transform(codes)
    return 100 * plane / np.abs(plane).max()
