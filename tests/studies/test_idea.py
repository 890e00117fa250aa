"""The identity is exact, and RMSHead gives generated weights the variance of ordinary ones."""

import pytest

from hyla_repro.studies.idea.analysis import generated_variance, identity_errors


def test_identity_errors_are_rounding_only() -> None:
    errors = identity_errors(n_heads=5, n_tokens=11, seed=3)
    assert list(errors.index) == ["softmax", "rms_head", "none"]
    assert 0 < errors.max() < 1e-13


def test_rms_head_generates_ordinary_variance_for_every_pair() -> None:
    for heads in (1, 4, 16):
        ratio = generated_variance("rms_head", heads, score_scale=3.0)
        assert ratio["low"] == pytest.approx(1, rel=0.15)
        assert ratio["high"] == pytest.approx(1, rel=0.15)
    plain, grown = generated_variance("none", 8), generated_variance("none", 8, score_scale=3.0)
    assert grown["median"] == pytest.approx(9 * plain["median"], rel=1e-3)
    assert generated_variance("softmax", 8)["median"] < 0.01
