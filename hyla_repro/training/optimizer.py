"""What AdamW needs besides its moments: learning rates, bias corrections, and what decays (paper, appendix)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-8


def learning_rate(step: int, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of a step: linear warm-up from 0, cosine to a tenth of the peak, then constant.

    The cosine ends warmup_steps before the last step (Deviation D3: a slip of the release that we keep).
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = min((step - warmup_steps) / (total_steps - 2 * warmup_steps), 1.0)
    return peak * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def schedule(steps: int, warmup_steps: int) -> Float[Tensor, "steps 3"]:
    """Return, for every step, the learning rate of peak 1 and AdamW's two bias corrections as factors.

    A step that is captured once and replayed has nothing but its number to compute them from, and float32 powers of
    the decay rates are too coarse; so they are tabulated in float64.
    """
    rows = [
        (learning_rate(step, 1.0, warmup_steps, steps), 1 / (1 - BETAS[0] ** (step + 1)),
         1 / math.sqrt(1 - BETAS[1] ** (step + 1)))
        for step in range(steps)
    ]  # fmt: skip
    return torch.tensor(rows, dtype=torch.float64).to(torch.float32)


def decays(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies to a parameter, by the release's rule.

    The release decays every parameter with more than one axis. Its query, key and value biases have two (head,
    width) and so are decayed; here they are one packed vector, named to keep that rule (Deviation D4).
    """
    return parameter.ndim > 1 or name.endswith("in_proj_bias")
