"""Relative position buckets, number by number against the authors' release, the bias built from them, and rotation."""

from cmath import exp
from collections.abc import Callable
from math import floor, log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hyla_repro.attention import VARIANTS, HypernetworkAttention
from hyla_repro.models import Transformer, TransformerConfig
from hyla_repro.models.position import RelativePositionBias, RotaryPosition, relative_position_buckets


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


# --- rotary positions -----------------------------------------------------------------------------------------

Rotate = Callable[[Tensor], Tensor]
SIZES = {
    "variant": "hyla", "n_layers": 2, "d_model": 11, "n_heads": 3, "qk_dim": 12, "v_dim": 6, "d_ff": 13,
    "n_positions": 7, "n_inputs": 5, "n_outputs": 2,
}  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("d_head", [2, 4, 10])
@pytest.mark.parametrize(("n_tokens", "n_heads_of"), [(7, 7), (7, 3), (5, 1)])
def test_rotation_multiplies_complex_numbers(d_head: int, n_tokens: int, n_heads_of: int) -> None:
    heads = draw(2, 3, n_heads_of, d_head)
    turned = RotaryPosition(d_head, 7)(n_tokens)(heads)
    half = d_head // 2
    for b, h, t, i in np.ndindex(2, 3, n_heads_of, half):
        position = n_tokens - n_heads_of + t
        number = complex(heads[b, h, t, i], heads[b, h, t, i + half])
        number *= exp(1j * position * 10_000 ** (-2 * i / d_head))
        assert abs(complex(turned[b, h, t, i], turned[b, h, t, i + half]) - number) < 1e-6


def test_angles_of_far_positions_are_as_exact_as_those_of_near_ones() -> None:
    rotary, ones = RotaryPosition(64, 8192), torch.ones(1, 1, 1, 64)
    angles = 8191 * 10_000.0 ** (-np.arange(0, 64, 2) / 64)
    expected = np.cos(angles) - np.sin(angles), np.cos(angles) + np.sin(angles)
    np.testing.assert_allclose(rotary(8192)(ones).flatten(), np.concatenate(expected), rtol=0, atol=3e-7)
    # Angles in float32 would be off by more than a hundred times as much.
    rough = torch.tensor(8191.0) * 10_000.0 ** (-torch.arange(0, 64, 2) / 64)
    assert np.abs(np.cos(angles) - rough.cos().numpy()).max() > 3e-5


def attend_at(start: int, attention: HypernetworkAttention, x: Tensor, kept: tuple[str, ...] = ()) -> Tensor:
    """Return the outputs of tokens that stand at start, start + 1, ...; `kept` is not turned."""
    turn, names = RotaryPosition(4, 64)(start + x.shape[1]), iter(("queries", "keys"))

    def rotate(heads: Tensor) -> Tensor:
        return heads if next(names) in kept else turn(heads)

    return attention(x, x, x, rotate=rotate)[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_distances_matter_and_only_if_queries_and_keys_are_turned(variant: str) -> None:
    torch.manual_seed(0)
    attention, x = HypernetworkAttention(12, 3, variant=variant, dtype=torch.float64), draw(2, 5, 12)
    here = attend_at(0, attention, x)
    # Sines and cosines are float32.
    for start in (1, 13, 59):
        torch.testing.assert_close(attend_at(start, attention, x), here, rtol=0, atol=1e-5)
    for kept in (("keys",), ("queries",)):
        moved = attend_at(13, attention, x, kept) - attend_at(0, attention, x, kept)
        assert moved.abs().max() > 1e-3
    # And distances do matter.
    assert (attend_at(0, attention, x, ("queries", "keys")) - here).abs().max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rotary_model_knows_the_order_without_parameters_of_positions(variant: str) -> None:
    model = Transformer(TransformerConfig(**SIZES | {"variant": variant, "position": "rotary"})).double()
    relative = Transformer(TransformerConfig(**SIZES | {"variant": variant}))
    tables = {f"blocks.{layer}.position.table" for layer in range(2)}
    assert set(relative.state_dict()) - set(model.state_dict()) == tables
    assert set(model.state_dict()) <= set(relative.state_dict())
    x = draw(2, 5, 5)
    assert not torch.allclose(model(x[:, [2, 0, 3, 1, 4]], last=1), model(x, last=1), atol=1e-5)
    torch.testing.assert_close(model(x, last=2), model(x)[:, -2:], rtol=1e-9, atol=1e-9)
    for block in model.blocks:
        block.position.turns[0], block.position.turns[1] = 1.0, 0.0
    torch.testing.assert_close(model(x[:, [2, 0, 3, 1, 4]], last=1), model(x, last=1), rtol=0, atol=1e-9)


def test_too_many_tokens_for_the_angles_are_named() -> None:
    with pytest.raises(ValueError, match=r"8 tokens exceed n_positions=7"):
        RotaryPosition(4, 7)(8)
    with pytest.raises(ValueError, match=r"8 tokens exceed n_positions=7"):
        Transformer(TransformerConfig(**SIZES, position="rotary"))(torch.zeros(1, 8, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"qk_dim": 9},
            r"'rotary' turns pairs of channels: qk_dim=9 in n_heads=3 heads gives each 3, and needs",
        ),
        ({"position": "absolute"}, r"position\n.*'relative' or 'rotary'"),
    ],
)
def test_positions_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**SIZES | {"position": "rotary"} | changes)


def test_only_rotary_positions_are_written_down() -> None:
    relative, rotary = (TransformerConfig(**SIZES, position=position) for position in ("relative", "rotary"))
    assert "position" not in relative.model_dump()
    assert rotary.model_dump() == relative.model_dump() | {"position": "rotary"}
    for config in (relative, rotary):
        assert TransformerConfig.model_validate_json(config.model_dump_json()) == config
