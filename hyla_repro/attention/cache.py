"""Keys and values of earlier tokens, so that generation computes each token's once."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Keys = Float[Tensor, "b h k d"]
# Takes the projected keys and values of new tokens, returns those of all tokens.
Cache = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class KeyValueCache:
    """The projected keys and values that one attention layer has seen, one cache for each layer and each text.

    A code belongs to its pair (q, k) and no later token changes it, in every variant. So attention with a cache,
    `is_causal=True` and only the new tokens gives what the whole sequence gives at their positions.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    @property
    def nbytes(self) -> int:
        """How many bytes its keys and values have."""
        return sum(part.nbytes for part in (self.keys, self.values) if part is not None)

    def __call__(self, keys: Keys, values: Float[Tensor, "b h k e"]) -> tuple[Tensor, Tensor]:
        """Add new tokens, and return the keys and values of all.

        Raises: ValueError for tokens of other batch, heads or widths than the cache has.
        """
        if self.keys is not None and self.values is not None:
            for name, old, new in (("keys", self.keys, keys), ("values", self.values, values)):
                if (*old.shape[:2], old.shape[3]) != (*new.shape[:2], new.shape[3]):
                    raise ValueError(
                        f"{name} of shape {tuple(new.shape)} do not continue the cache's {tuple(old.shape)}: batch, "
                        "heads and width must be equal; use a new KeyValueCache for each layer and each batch of texts"
                    )
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values
