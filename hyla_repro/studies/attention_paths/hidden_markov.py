"""The hidden Markov chain task and its hand-made heads, with the authors' random numbers in their order."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from hyla_repro.errors import choose, whole_number

N_TOKENS = 30
N_FEATURES = 200
HEADS = ("good", "uniform", "random")
# How likely the hidden state is to stay, in chains labelled +1 and -1.
_STAY = {1: 0.7, -1: 0.3}
# Scores are this times what the constructions below say; the first token gets half as much again as the previous one.
_SHARPNESS, _REST = 10.0, 1.5


def state_tokens() -> Float[Tensor, "2 i"]:
    """Return the tokens of the hidden states + and -: orthogonal, of squared norm 200."""
    halves = torch.eye(2, dtype=torch.float64).repeat_interleave(N_FEATURES // 2, dim=1)
    return halves * 2**0.5


def hidden_markov_chain(
    n_examples: int, seed: int, noise: float = 1.0, plane_noise: float = 1.0
) -> tuple[Float[Tensor, "b t i"], Float[Tensor, " b"]]:
    """Return chains of a hidden state that tends to stay (label +1) or to change (label -1), seen through noise.

    The first token is zero, the other 30 are the state's token with Gaussian noise; one-hot positions are appended.

    Args:
        n_examples: half of each label, those of +1 first.
        noise: standard deviation of the noise in the directions that no state's token has.
        plane_noise: that in the plane of the two states' tokens.

    Raises: ValueError for a number of examples that is not even.
    Source: Tiberi et al., their hidden_markov_chain_classification; the same random numbers in the same order.
    """
    whole_number("n_examples", n_examples, 2, "there is a half of each label")
    if n_examples % 2:
        raise ValueError(f"n_examples={n_examples} is odd: there are as many chains of one label as of the other")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat_interleave(n_examples // 2)
    states = torch.tensor([_chain(_STAY[int(label)], generator) for label in labels])
    tokens = state_tokens()
    drawn = torch.randn(n_examples, N_FEATURES, N_TOKENS, generator=generator, dtype=torch.float64)
    drawn = rearrange(drawn, "b i t -> b t i")
    in_plane = drawn @ tokens.mT @ tokens / N_FEATURES
    features = tokens[states] + plane_noise * in_plane + noise * (drawn - in_plane)
    x = torch.zeros(n_examples, N_TOKENS + 1, N_FEATURES + N_TOKENS + 1, dtype=torch.float64)
    x[:, 1:, :N_FEATURES] = features
    x[:, :, N_FEATURES:] = torch.eye(N_TOKENS + 1)
    return x, labels


def hmm_heads(*heads: str | tuple[str, int]) -> Float[Tensor, "h i i"]:
    """Return the weights of a layer's heads, W in softmax over keys k of x_k^T W x_q.

    Args:
        heads: `good`, which copies the previous token if its state is the same, and else reads the first token, which
            is empty; `uniform`, the mean over tokens; or `("random", seed)`.

    Raises: ValueError for another head.
    Source: Tiberi et al., their set_W, same_token, uniform_attention and blank with perturbation strength 1.
    """
    return torch.stack([_random_head(*head[1:]) if isinstance(head, tuple) else _made_head(head) for head in heads])


def _chain(stay: float, generator: torch.Generator) -> list[int]:
    """Return the states of one chain, 0 for + and 1 for -."""

    def coin() -> float:
        return torch.rand(1, generator=generator, dtype=torch.float64).item()

    states = [0 if coin() >= 0.5 else 1]
    for _ in range(N_TOKENS - 1):
        states.append(states[-1] if coin() < stay else 1 - states[-1])
    return states


def _made_head(name: str) -> Tensor:
    weights = torch.zeros(N_FEATURES + N_TOKENS + 1, N_FEATURES + N_TOKENS + 1, dtype=torch.float64)
    position = weights[N_FEATURES:, N_FEATURES:]
    if choose("head", name, HEADS[:2]) == "uniform":
        position += 1
        return _SHARPNESS * weights
    difference = reduce(state_tokens() * torch.tensor([[1.0], [-1.0]]), "s i -> i", "sum") / N_FEATURES
    weights[:N_FEATURES, :N_FEATURES] = torch.outer(difference, difference)
    position += torch.eye(N_TOKENS + 1).roll(1, 1).triu(1)
    position[0, 1:] = _REST
    return _SHARPNESS * weights


def _random_head(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int) -> Tensor:
        return torch.randn(size, size, generator=generator, dtype=torch.float64)

    feature, position, cross = normal(N_FEATURES), normal(N_TOKENS + 1), normal(N_FEATURES + N_TOKENS + 1)
    weights = cross / N_FEATURES**0.5
    weights[:N_FEATURES, :N_FEATURES] = feature / N_FEATURES
    weights[N_FEATURES:, N_FEATURES:] = position
    return _SHARPNESS * weights
