"""How the latent code of a pair (q, k) is made from its scores, one function for each way (sections 2 and 3)."""

from collections.abc import Callable

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from hyla_repro.attention.masks import Masked

Code = Float[Tensor, "b h q k"]
Normalizer = Callable[[Code, Masked], Code]


def softmax_over_keys(scores: Code, masked: Masked = None) -> Code:
    """Normalise each head's scores over the keys; a query that may see no key gets the zero code, not NaN."""
    if masked is None:
        return scores.softmax(-1)
    visible = scores.masked_fill(masked, torch.finfo(scores.dtype).min)
    return visible.softmax(-1).masked_fill(masked, 0.0)


def rms_over_heads(scores: Code, masked: Masked = None, eps: float = 1e-6) -> Code:
    """Divide the code of each pair (q, k) by its root mean square over the heads (RMSHead).

    Returns: dimensionless, RMS 1 over h wherever the scores are large against sqrt(eps); no learned scale.
    Source: paper, definition of HYLA. Masked pairs have score 0 and so code 0.
    """
    scores = unnormalized(scores, masked)
    # Half precision squares to infinity from 256 on, and the code would be 0.
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return (wide * torch.rsqrt(reduce(wide.square(), "b h q k -> b 1 q k", "mean") + eps)).to(scores.dtype)


def unnormalized(scores: Code, masked: Masked = None) -> Code:
    """Return the scores as they are, 0 at masked pairs (linear attention)."""
    return scores if masked is None else scores.masked_fill(masked, 0.0)


#: What `normalizer` may be: how the latent code is made of the scores.
NORMALIZERS: dict[str, Normalizer] = {"softmax": softmax_over_keys, "rms_head": rms_over_heads, "none": unnormalized}
