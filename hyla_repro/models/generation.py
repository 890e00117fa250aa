"""Texts that a causal language model goes on with, token by token."""

import math

import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from hyla_repro.attention import KeyValueCache
from hyla_repro.counter_rng import CounterRNG
from hyla_repro.errors import whole_number
from hyla_repro.models.transformer import Transformer


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: Tensor,
    steps: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Int[Tensor, "b text"]:
    """Return the prompt and `steps` more tokens, each drawn from what the model reads out at the one before it.

        p(token) = softmax(outputs / temperature)

    The softmax is over the top_k tokens with the largest outputs.

    Up to n_positions tokens the model sees the whole text, and the keys and values of earlier tokens are cached. From
    then on it sees the last n_positions tokens as if the text began with them, and computes them anew for each new
    one: what layers above the first have cached still knows of tokens that are gone.

    Args:
        prompt: token numbers (b, t), at least one for each text and at most n_positions.
        steps: how many tokens to add.
        temperature: above 0; small ones prefer likely tokens. For the likeliest one alone use top_k=1.
        top_k: draw from this many tokens, all if None.
        seed: the draw for a token depends on it, on the token's place and on the text's row in the batch alone.

    Returns: token numbers (b, t + steps), int64.
    Raises: ValueError for a model that is not causal or not of tokens, or whose outputs are not finite, for a prompt
        that is none, too long or outside the vocabulary, and for settings out of range.
    """
    n_positions, vocabulary = _limits(model)
    _check_prompt(prompt, n_positions, vocabulary)
    steps = whole_number("steps", steps, 0, "it counts the tokens to add")
    if not 0.0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature} is not above 0 and finite: for the likeliest token use top_k=1")
    if top_k is not None:
        top_k = whole_number("top_k", top_k, 1, "the vocabulary has no more tokens to draw from", vocabulary)
    rng, text, caches = CounterRNG(seed, "generate"), prompt.long(), [KeyValueCache() for _ in model.blocks]
    for place in range(text.shape[1], text.shape[1] + steps):
        if place <= n_positions:
            outputs = model(text[:, len(caches[0]) :], last=1, caches=caches)
        else:
            outputs = model(text[:, -n_positions:], last=1)
        # Two numbers of 24 bits each, as large vocabularies have tokens that one would never reach.
        high, low = rng.uniform(place, (len(text), 2)).double().unbind(-1)
        drawn = _draw(outputs[:, -1], temperature, top_k, high + low * 2.0**-24)
        text = torch.cat([text, drawn.to(text.device)], dim=1)
    return text


def _draw(
    outputs: Float[Tensor, "b vocabulary"], temperature: float, top_k: int | None, uniform: Float[Tensor, " b"]
) -> Int[Tensor, "b 1"]:
    """Return the token at which the sum of probabilities passes a number uniform on [0, 1).

    On the CPU and in float64, so that every device draws alike.
    """
    scores, tokens = outputs.cpu(), None
    if top_k is not None:
        scores, tokens = scores.topk(top_k)
    scores = scores.double()
    total = ((scores - reduce(scores, "b k -> b 1", "max")) / temperature).exp().cumsum(-1)
    if not total.isfinite().all():
        raise ValueError("the model's outputs are not finite numbers, so there is nothing to draw from")
    passed = torch.searchsorted(total, uniform.unsqueeze(-1) * total[:, -1:], right=True)
    return passed if tokens is None else tokens.gather(-1, passed)


def _limits(model: Transformer) -> tuple[int, int]:
    """Return how many tokens a model sees and how many there are, if it can go on with a text."""
    config = model.config
    if config.vocab_size is None:
        raise ValueError(f"a model of vectors (n_inputs={config.n_inputs}) has no next token: use one with vocab_size")
    if not config.causal:
        raise ValueError("a model with causal=False has seen the tokens that it would have to draw: use causal=True")
    return config.n_positions, config.vocab_size


def _check_prompt(prompt: Tensor, n_positions: int, vocabulary: int) -> None:
    if prompt.ndim != 2 or not prompt.numel() or prompt.is_floating_point() or prompt.dtype == torch.bool:
        raise ValueError(
            f"prompt is {prompt.dtype} of shape {tuple(prompt.shape)}: needs (batch, token) of token numbers, with at "
            "least one text and one token"
        )
    if prompt.shape[1] > n_positions:
        raise ValueError(
            f"prompt has {prompt.shape[1]} tokens, which exceed n_positions={n_positions} of this model: give the last "
            f"ones, prompt[:, -{n_positions}:]"
        )
    outside = prompt[(prompt < 0) | (prompt >= vocabulary)]
    if len(outside):
        raise ValueError(f"prompt has token {outside[0]}: numbers of this model's vocabulary are 0 to {vocabulary - 1}")
