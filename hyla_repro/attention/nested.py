"""Nested tensors, which torch's encoders make of padded batches: padded for attention, and packed again."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def pad(nested: Tensor) -> tuple[Float[Tensor, "b t m"], Bool[Tensor, "b t"]]:
    """Return the sequences of a nested tensor, filled up with zeros, and True where they are."""
    lengths = torch.tensor([len(sequence) for sequence in nested.unbind()], device=nested.device)
    padded = torch.nested.to_padded_tensor(nested, 0.0)
    return padded, torch.arange(padded.shape[1], device=nested.device) >= lengths.unsqueeze(-1)


def pack(padded: Float[Tensor, "b t m"], padding: Bool[Tensor, "b t"], like: Tensor) -> Tensor:
    """Return padded sequences as a nested tensor of the layout, and the lengths, of another one."""
    if like.layout == torch.jagged:
        return torch.nested.nested_tensor_from_jagged(padded[~padding], offsets=like.offsets())  # type: ignore[attr-defined]
    return torch.nested.as_nested_tensor([row[~hidden] for row, hidden in zip(padded, padding, strict=True)])
