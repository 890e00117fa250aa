"""Counter-based random numbers: published vectors, exact integer arithmetic, distributions and independence."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from hyla_repro.counter_rng import CounterRNG, philox4x32

WORD = 2**32 - 1
words = st.integers(0, WORD)


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_published_known_answers(counter: str, key: str, expected: str) -> None:
    """The philox4x32-10 lines of kat_vectors in the Random123 distribution."""
    block = philox4x32(torch.tensor(words_of(counter)).unsqueeze(-1), tuple(words_of(key)))
    assert block.flatten().tolist() == words_of(expected)


def philox_of_integers(counter: list[int], key: list[int], rounds: int) -> list[int]:
    """Evaluate the published recurrence in Python's unbounded integers, which cannot wrap."""
    (r0, l0, r1, l1), (k0, k1) = counter, key
    for i in range(rounds):
        high0, low0 = divmod(r0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(r1 * 0xCD9E8D57, 2**32)
        key0, key1 = (k0 + i * 0x9E3779B9) % 2**32, (k1 + i * 0xBB67AE85) % 2**32
        r0, l0, r1, l1 = high1 ^ l0 ^ key0, low1, high0 ^ l1 ^ key1, low0
    return [r0, l0, r1, l1]


@settings(max_examples=200)
@given(st.lists(words, min_size=4, max_size=4), st.lists(words, min_size=2, max_size=2), st.sampled_from([1, 2, 7, 10]))
def test_wrapping_products_equal_unbounded_integers(counter: list[int], key: list[int], rounds: int) -> None:
    block = philox4x32(torch.tensor(counter).unsqueeze(-1), (key[0], key[1]), rounds)
    assert block.flatten().tolist() == philox_of_integers(counter, key, rounds)


def test_one_key_per_column() -> None:
    counter = torch.arange(12).reshape(4, 3)
    keys = torch.tensor([[1, 2, 3], [WORD, 0, 5]])
    together = philox4x32(counter, (keys[0], keys[1]))
    for column in range(3):
        alone = philox4x32(counter[:, column : column + 1], (int(keys[0, column]), int(keys[1, column])))
        assert torch.equal(together[:, column : column + 1], alone)


# --- what a value depends on --------------------------------------------------------------------------------

DRAWS = {
    "uniform": lambda rng, step, size: rng.uniform(step, (size, 3)),
    "integers": lambda rng, step, size: rng.integers(step, (size, 3), 1000),
    "permutations": lambda rng, step, size: rng.permutations(step, size, 5),
}
CPU_DRAWS = {
    "normal": lambda rng, step, size: rng.normal(step, (size, 3)),
    "truncated_normal": lambda rng, step, size: rng.truncated_normal(step, (size, 3)),
}


@pytest.mark.parametrize("draw", {**DRAWS, **CPU_DRAWS})
@given(seed=words, step=st.integers(0, 2**40), size=st.integers(1, 12), extra=st.integers(0, 12))
def test_a_larger_size_only_appends(draw: str, seed: int, step: int, size: int, extra: int) -> None:
    make = {**DRAWS, **CPU_DRAWS}[draw]
    rng = CounterRNG(seed, "purpose")
    assert torch.equal(make(rng, step, size + extra)[:size], make(CounterRNG(seed, "purpose"), step, size))


@pytest.mark.parametrize("draw", {**DRAWS, **CPU_DRAWS})
def test_no_global_state_is_read_or_changed(draw: str) -> None:
    make = {**DRAWS, **CPU_DRAWS}[draw]
    torch.manual_seed(1)
    first, state = make(CounterRNG(7, "a"), 3, 11), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(make(CounterRNG(7, "a"), 3, 11), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("draw", DRAWS)
@given(step=st.integers(0, 2**63 - 1))
def test_a_step_in_a_tensor_is_the_same_step(draw: str, step: int) -> None:
    rng = CounterRNG(3, "a")
    assert torch.equal(DRAWS[draw](rng, torch.tensor(step), 7), DRAWS[draw](rng, step, 7))


@given(st.integers(0, 2**63 - 1))
def test_both_words_of_the_step_count(step: int) -> None:
    rng = CounterRNG(3, "a")
    low, high = step % 2**32, step // 2**32
    expected = [philox_of_integers([index, 0, low, high], list(rng.key), 10) for index in range(5)]
    assert rng.bits(step, 5).T.tolist() == expected


@pytest.mark.parametrize("draw", {**DRAWS, **CPU_DRAWS})
def test_streams_of_other_seed_purpose_or_step_differ(draw: str) -> None:
    make = {**DRAWS, **CPU_DRAWS}[draw]
    settings_ = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 2**32), (WORD, "a", 0), (0, "", 0)]
    streams = [make(CounterRNG(seed, purpose), step, 16) for seed, purpose, step in settings_]
    assert all(not torch.equal(one, other) for one, other in combinations(streams, 2))


@pytest.mark.parametrize("change", ["seed", "purpose", "step"])
def test_neighbouring_streams_are_uncorrelated(change: str) -> None:
    n = 20_000
    base = CounterRNG(5, "train").uniform(0, (n,)).double()
    other = {
        "seed": CounterRNG(6, "train").uniform(0, (n,)),
        "purpose": CounterRNG(5, "test").uniform(0, (n,)),
        "step": CounterRNG(5, "train").uniform(1, (n,)),
    }[change].double()
    # The correlation of independent streams has standard deviation 1 / sqrt(n) = 0.007.
    assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 0.03
    assert int((base == other).sum()) <= 3


# --- distributions ------------------------------------------------------------------------------------------


def test_uniform_is_uniform() -> None:
    x = torch.cat([CounterRNG(0, "u").uniform(step, (50_000,)) for step in range(4)])
    assert x.dtype == torch.float32
    assert 0.0 <= float(x.min()) < 1e-4
    assert 1 - 1e-4 < float(x.max()) < 1.0
    assert torch.equal(x * 2**24, (x * 2**24).round())
    # Five standard deviations of the mean of 200 000 numbers, and of their mean square.
    assert abs(float(x.double().mean()) - 1 / 2) < 5 * (1 / 12 / 200_000) ** 0.5
    assert abs(float(x.double().square().mean()) - 1 / 3) < 5 * (4 / 45 / 200_000) ** 0.5
    counts = np.bincount((x * 97).long().numpy(), minlength=97)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_uniform_never_rounds_up_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CounterRNG, "bits", lambda self, step, size, device="cpu": torch.full((4, size), WORD))
    assert CounterRNG(0, "").uniform(0, (3,)).tolist() == [1 - 2.0**-24] * 3


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 20, 33, 47, 1000, 3**10, 65_536])
def test_integers_are_uniform_over_their_whole_support(bound: int) -> None:
    n = 20 * bound if bound > 1000 else 50_000
    x = CounterRNG(1, "i").integers(0, (n,), bound)
    assert int(x.min()) >= 0
    assert int(x.max()) < bound
    if bound > 1:
        assert stats.chisquare(np.bincount(x.numpy(), minlength=bound)).pvalue > 1e-4


def crafted(monkeypatch: pytest.MonkeyPatch, columns: list[list[int]]) -> CounterRNG:
    block = torch.tensor(columns).T
    monkeypatch.setattr(CounterRNG, "bits", lambda self, step, size, device="cpu": block[:, :size])
    return CounterRNG(0, "")


def test_words_beyond_the_largest_multiple_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """2**32 = 4 * 1 073 741 824 = 3 * 1 431 655 765 + 1: for bound 3, exactly the largest word is refused."""
    rng = crafted(monkeypatch, [
        [5, WORD, WORD, WORD],  # the first word is good: 5 mod 3
        [WORD, 7, 0, 0],  # one refused: 7 mod 3
        [WORD, WORD, 8, 0],  # two refused: 8 mod 3
        [WORD, WORD, WORD, 4],  # three refused: 4 mod 3
        [WORD - 1, 0, 0, 0],  # the largest word that is accepted: 2**32 - 2 = 2 (mod 3)
    ])  # fmt: skip
    assert rng.integers(0, (5,), 3).tolist() == [2, 1, 2, 1, 2]


def test_powers_of_two_reject_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = crafted(monkeypatch, [[WORD, 0, 0, 0], [2**31, 1, 1, 1]])
    assert rng.integers(0, (2,), 65_536).tolist() == [65_535, 0]
    assert rng.integers(0, (2,), 1).tolist() == [0, 0]


def test_permutations_are_uniform_over_all_24() -> None:
    n = 24_000
    drawn = CounterRNG(2, "p").permutations(0, n, 4)
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 24
    assert all(sorted(p) == [0, 1, 2, 3] for p in counts)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@given(st.integers(0, 7), st.integers(1, 70), st.integers(0, 2**33))
def test_permutations_hold_every_number_once(count: int, n: int, step: int) -> None:
    drawn = CounterRNG(2, "p").permutations(step, count, n)
    assert drawn.shape == (count, n)
    assert torch.equal(drawn.sort(-1).values, torch.arange(n).expand(count, n))


def test_normal_has_the_normal_distribution() -> None:
    x = CounterRNG(3, "n").normal(0, (200, 251)).flatten()
    assert x.dtype == torch.float32
    assert stats.kstest(x.double().numpy(), "norm").pvalue > 1e-4
    # Five standard deviations of the sample's mean and variance.
    assert abs(float(x.mean())) < 5 / len(x) ** 0.5
    assert abs(float(x.var()) - 1) < 5 * (2 / len(x)) ** 0.5


def test_truncated_normal_is_cut_at_two_and_has_unit_variance() -> None:
    x = CounterRNG(3, "t").truncated_normal(0, (200, 251)).flatten().double()
    scale = stats.truncnorm(-2, 2).std()
    assert float(x.abs().max()) <= 2 / scale + 1e-6
    assert float(x.abs().max()) > 1.99 / scale
    assert stats.kstest(x.numpy() * scale, stats.truncnorm(-2, 2).cdf).pvalue > 1e-4
    assert abs(float(x.mean())) < 5 / len(x) ** 0.5
    assert abs(float(x.var()) - 1) < 0.02


@pytest.mark.parametrize("extreme", [0, WORD])
def test_normals_stay_finite_at_the_extreme_words(extreme: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CounterRNG, "bits", lambda self, step, size, device="cpu": torch.full((4, size), extreme))
    rng = CounterRNG(0, "")
    assert rng.normal(0, (3,)).isfinite().all()
    assert 2.27 < float(rng.truncated_normal(0, (3,)).abs().max()) < 2.28


# --- errors and devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed={seed} is out of range: use an integer from 0 to {WORD}"):
        CounterRNG(seed, "a")


@pytest.mark.parametrize("bound", [0, -3, 65_537])
def test_bound_out_of_range_is_named(bound: int) -> None:
    with pytest.raises(ValueError, match=rf"bound={bound} is out of range: use 1 to 65536"):
        CounterRNG(0, "a").integers(0, (2,), bound)


@pytest.mark.gpu
@pytest.mark.parametrize("draw", DRAWS)
def test_cuda_gives_the_same_bits(draw: str) -> None:
    calls = {
        "uniform": lambda rng, device: rng.uniform(2**33 + 1, (101, 7), device),
        "integers": lambda rng, device: rng.integers(5, (10_007,), 47, device),
        "permutations": lambda rng, device: rng.permutations(5, 1009, 11, device),
    }
    rng = CounterRNG(11, "cuda")
    on_gpu: Tensor = calls[draw](rng, "cuda")
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), calls[draw](rng, "cpu"))


def test_large_integers_are_uniform_far_beyond_a_word() -> None:
    bound = 3 * 2**36
    drawn = CounterRNG(0, "t").large_integers(0, (30_000,), bound)
    assert drawn.min() >= 0
    assert drawn.max() < bound
    # Thirds, and the lowest bits, which a product of floating-point numbers would leave zero.
    assert torch.bincount(drawn * 3 // bound).tolist() == pytest.approx([10_000] * 3, abs=400)
    assert torch.bincount(drawn % 16).tolist() == pytest.approx([1875] * 16, abs=200)


def test_large_integers_of_the_largest_bound_and_beyond() -> None:
    assert CounterRNG(0, "t").large_integers(0, (1000,), 2**40).max() > 2**39
    for bound in (0, 2**40 + 1):
        with pytest.raises(ValueError, match=rf"bound={bound} is out of range: use 1 to 2\*\*40"):
            CounterRNG(0, "t").large_integers(0, (1,), bound)
