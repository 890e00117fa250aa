"""Relative position buckets, number by number against the authors' release, and the bias built from them."""

from math import floor, log
from pathlib import Path

import numpy as np
import pytest
import torch

from hyla_repro.models.position import RelativePositionBias, relative_position_buckets


@pytest.mark.parametrize("n_positions", [12, 16, 32, 36, 64, 96, 128])
def test_golden_buckets(n_positions: int, golden: Path) -> None:
    with np.load(golden / "relative_position_buckets.npz") as archive:
        expected = archive[f"buckets_T{n_positions}"]
    np.testing.assert_array_equal(relative_position_buckets(n_positions), expected)


@pytest.mark.parametrize("n_positions", [2, 3, 5, 7, 11, 13, 53])
def test_structure_of_the_buckets(n_positions: int) -> None:
    buckets = relative_position_buckets(n_positions)
    exact = n_positions // 2
    for q, k in np.ndindex(n_positions, n_positions):
        # One-directional: whatever stands to the right shares the bucket of the query itself.
        expected = relative_position_buckets(n_positions)[max(q - k, 0), 0]
        assert buckets[q, k] == expected
    column = buckets[:, 0].tolist()
    assert column[:exact] == list(range(exact))
    assert column == sorted(column)
    assert column[-1] <= n_positions - 1
    for n in range(exact + 1, n_positions):
        formula = exact + floor(log(n / exact) / log(n_positions / exact) * (n_positions - exact))
        assert abs(column[n] - min(formula, n_positions - 1)) <= 1


def test_buckets_by_hand() -> None:
    """T = 5: distances 0 and 1 are exact, 2 -> 2, 3 -> 2 + floor(3 ln 1.5 / ln 2.5) = 3, 4 -> 2 + floor(2.27) = 4."""
    assert relative_position_buckets(5).tolist() == [
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [2, 1, 0, 0, 0],
        [3, 2, 1, 0, 0],
        [4, 3, 2, 1, 0],
    ]


def filled_bias(n_heads: int = 3, n_positions: int = 7) -> RelativePositionBias:
    bias = RelativePositionBias(n_heads, n_positions)
    bias.table.data = torch.arange(n_heads * n_positions, dtype=torch.float32).reshape(n_heads, n_positions)
    return bias


@pytest.mark.parametrize("n_tokens", [2, 5, 7])
def test_bias_looks_up_the_table(n_tokens: int) -> None:
    bias = filled_bias()
    scores = bias(n_tokens)
    assert scores.shape == (1, 3, n_tokens, n_tokens)
    for h, q, k in np.ndindex(3, n_tokens, n_tokens):
        assert scores[0, h, q, k] == bias.table[h, bias.one_hot[q, k].argmax()]


@pytest.mark.parametrize(("n_tokens", "last"), [(7, 1), (7, 3), (5, 2), (5, 5)])
def test_last_rows_are_those_of_the_whole(n_tokens: int, last: int) -> None:
    bias = filled_bias()
    assert torch.equal(bias(n_tokens, last), bias(n_tokens)[:, :, -last:])


def test_every_used_bucket_gets_its_gradient() -> None:
    bias = filled_bias()
    bias(7).sum().backward()
    counts = torch.bincount(bias.one_hot.argmax(-1).flatten(), minlength=7).float()
    assert torch.equal(bias.table.grad, counts.expand(3, -1))


def test_buckets_are_no_part_of_the_stored_state() -> None:
    assert list(filled_bias().state_dict()) == ["table"]


@pytest.mark.parametrize("n_positions", [-1, 0, 1])
def test_too_few_positions_are_named(n_positions: int) -> None:
    with pytest.raises(ValueError, match=rf"n_positions={n_positions} is too short.*at least 2"):
        relative_position_buckets(n_positions)


def test_too_many_tokens_are_named() -> None:
    with pytest.raises(ValueError, match=r"8 tokens exceed n_positions=7"):
        filled_bias()(8)
