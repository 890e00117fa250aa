"""How well a text is predicted by counting: the line that a trained model must beat."""

import numpy as np


def n_gram_loss(train: np.ndarray, test: np.ndarray, order: int, vocab_size: int) -> float:
    """Return the loss of an interpolated n-gram model in nats per token, each token of `test` given all before it.

        P_n(c | h) = (N(h c) + T(h) P_{n-1}(c | h')) / (N(h) + T(h))

    N counts in `train`, T(h) is how many different tokens follow h there, h' is h without its first token, and P_0 is
    uniform. There is nothing to tune.

    Args:
        order: n, tokens looked at, the predicted one included; contexts before the start of `test` are shorter.

    Raises: ValueError for a model whose counts have no place in 64 bits.
    Source: Witten and Bell, "The zero-frequency problem", IEEE Transactions on Information Theory 37, 1991.
    """
    if order < 1 or vocab_size**order >= 2**63:
        raise ValueError(f"order={order} with {vocab_size} tokens is out of range: n-grams are numbered in 63 bits")
    train, test = train.astype(np.int64), test.astype(np.int64)
    probability = np.full(len(test), 1.0 / vocab_size)
    for n in range(1, order + 1):
        grams, counts = np.unique(_numbered(train, n, vocab_size), return_counts=True)
        contexts, first = np.unique(grams // vocab_size, return_index=True)
        total, kinds = np.add.reduceat(counts, first), np.diff([*first, len(grams)])
        asked = _numbered(test, n, vocab_size)
        joint = _look_up(grams, counts, asked)
        seen, followers = (_look_up(contexts, column, asked // vocab_size) for column in (total, kinds))
        shorter = probability[n - 1 :]
        # A context that was never seen says nothing, so the shorter one stands.
        probability[n - 1 :] = np.where(
            seen > 0, (joint + followers * shorter) / np.maximum(seen + followers, 1), shorter
        )
    return float(-np.log(probability).mean())


def _numbered(tokens: np.ndarray, n: int, vocab_size: int) -> np.ndarray:
    """Return every n-gram as one number, its last token the lowest digit."""
    number = np.zeros(len(tokens) - n + 1, dtype=np.int64)
    for place in range(n):
        number = number * vocab_size + tokens[place : len(tokens) - n + 1 + place]
    return number


def _look_up(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the value of each key, 0 for one that is not there."""
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
