"""The identity is exact, and RMSHead gives generated weights the variance of ordinary ones."""

import pytest
import torch

from hyla_repro.studies.idea.analysis import generated_variance, identity_errors, two_readings


def test_identity_errors_are_rounding_only() -> None:
    errors = identity_errors(n_heads=5, n_tokens=11, seed=3)
    assert list(errors.index) == ["softmax", "rms_head", "none"]
    assert 0 < errors.max() < 1e-13


def test_both_readings_are_those_of_a_seed() -> None:
    state = torch.get_rng_state()
    first, again, other = (two_readings(4, 7, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.direct, other.direct)
    assert first.code.shape == (1, 4, 7, 7)
    assert first.generated.shape == (1, 7, 7, 32, 32)
    torch.testing.assert_close(first.code.sum(-1), torch.ones(1, 4, 7, dtype=torch.float64))


def test_rms_head_generates_ordinary_variance_for_every_pair() -> None:
    for heads in (1, 4, 16):
        ratio = generated_variance("rms_head", heads, score_scale=3.0)
        assert ratio["low"] == pytest.approx(1, rel=0.15)
        assert ratio["high"] == pytest.approx(1, rel=0.15)
    plain, grown = generated_variance("none", 8), generated_variance("none", 8, score_scale=3.0)
    assert grown["median"] == pytest.approx(9 * plain["median"], rel=1e-3)
    assert generated_variance("softmax", 8)["median"] < 0.01
