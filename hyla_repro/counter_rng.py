"""Counter-based random numbers: value = f(key, counter), the same bits on every device, version and stack size."""

import hashlib
from math import prod

import torch
from einops import rearrange
from torch import Tensor

from hyla_repro.errors import whole_number

MAX_STEP = 2**63 - 1
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox4x32(counter: Tensor, key: tuple[int | Tensor, int | Tensor], rounds: int = 10) -> Tensor:
    """Return the Philox4x32 block of each counter: four 32-bit words, held in int64.

    Args:
        counter: (4, n), words in [0, 2**32).
        key: two words, or tensors that broadcast against n (one key per run of a stack).

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        # int64 products wrap modulo 2**64, so their 32-bit halves are exact although the sign is not.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _WORD) ^ c1 ^ k0, p1 & _WORD, ((p0 >> 32) & _WORD) ^ c3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return torch.stack([c0, c1, c2, c3])


def step_and_size(step: int, size: int, of: str = "sequence") -> tuple[int, int]:
    """Return the step and the size of a batch, for a task's `batch`.

    Args:
        of: what a batch consists of.

    Raises: ValueError for a step or size that is not whole or out of range.
    """
    step = whole_number("step", step, 0, "it is two words of the random numbers' counter", MAX_STEP)
    return step, whole_number("size", size, 1, f"a batch has at least one {of}")


@torch.compiler.assume_constant_result
def _purpose_word(purpose: str) -> int:
    # The compiler cannot look into a hash, and need not: a program's purposes do not change.
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")


class CounterRNG:
    """The random stream of one seed and one purpose; every draw names its step and repeats exactly.

    Args:
        seed: any integer in [0, 2**32), or a tensor () of one, which vmap may turn into one seed per run.
        purpose: what the numbers are for; streams of different purposes are independent.

    Raises: ValueError for a seed out of range; a tensor is not looked into.
    """

    def __init__(self, seed: int | Tensor, purpose: str) -> None:
        if isinstance(seed, int) and not 0 <= seed <= _WORD:
            raise ValueError(f"seed={seed} is out of range: use an integer from 0 to {_WORD}")
        self.key = (seed, _purpose_word(purpose))

    def bits(self, step: int | Tensor, size: int, device: torch.device | str = "cpu") -> Tensor:
        """Return `size` blocks (4, size) of 32-bit words for this step."""
        index = torch.arange(size, device=device)
        step = torch.as_tensor(step, dtype=torch.int64, device=device)
        low, high = (step & _WORD).expand(size), (step >> 32).expand(size)
        return philox4x32(torch.stack([index, torch.zeros_like(index), low, high]), self.key)

    def _words(self, step: int | Tensor, size: int, device: torch.device | str) -> Tensor:
        return rearrange(self.bits(step, -(-size // 4), device), "word n -> (n word)")[:size]

    def uniform(self, step: int | Tensor, shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
        """Return float32 numbers uniform on the multiples of 2**-24 in [0, 1)."""
        words = self._words(step, prod(shape), device) >> 8
        return (words.to(torch.float32) * 2.0**-24).reshape(shape)

    def integers(
        self, step: int | Tensor, shape: tuple[int, ...], bound: int | Tensor, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return integers uniform on {0, ..., bound - 1}, without modulo bias.

        Bound may be a tensor (), or one that broadcasts to the shape: a bound for each number.

        Each number takes the first of its block's four words that lies below the largest multiple of bound.
        All four fail with probability (bound / 2**32)**4, below 2**-64; then the last word's bias stands.

        Raises: ValueError for a bound outside 1..65536; a tensor is not looked into.
        """
        if isinstance(bound, int) and not 1 <= bound <= 1 << 16:
            raise ValueError(f"bound={bound} is out of range: use 1 to 65536")
        if isinstance(bound, Tensor) and bound.ndim:
            bound = bound.expand(shape).reshape(-1)
        words = self.bits(step, prod(shape), device)
        limit = (1 << 32) // bound * bound
        first, second, third, chosen = words
        for word in (third, second, first):
            chosen = torch.where(word < limit, word, chosen)
        return (chosen % bound).reshape(shape)

    def large_integers(
        self, step: int | Tensor, shape: tuple[int, ...], bound: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return integers uniform on {0, ..., bound - 1} for bounds beyond those of `integers`.

        They are remainders of 62-bit numbers, so no number is likelier than another by more than bound / 2**62.

        Raises: ValueError for a bound outside 1..2**40.
        """
        if not 1 <= bound <= 1 << 40:
            raise ValueError(f"bound={bound} is out of range: use 1 to 2**40")
        high, low = self.bits(step, prod(shape), device)[:2]
        return ((((high >> 2) << 32) | low) % bound).reshape(shape)

    def permutations(self, step: int | Tensor, count: int, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Return `count` uniform permutations (count, n) of 0..n-1, by sorting 62-bit keys."""
        high, low = self.bits(step, count * n, device)[:2]
        keys = rearrange(((high >> 2) << 32) | low, "(c n) -> c n", n=n)
        return keys.argsort(stable=True, dim=-1)

    def _open_uniform(self, step: int, shape: tuple[int, ...]) -> Tensor:
        words = self.bits(step, -(-prod(shape) // 2))
        high, low = rearrange(words, "(pair half) n -> half (n pair)", half=2)[:, : prod(shape)]
        return ((((high << 20) | (low >> 12)).to(torch.float64) + 0.5) * 2.0**-52).reshape(shape)

    def normal(self, step: int, shape: tuple[int, ...]) -> Tensor:
        """Return float32 standard normal numbers; on the CPU only, where float64 erfinv is at hand."""
        return (2**0.5 * torch.erfinv(2 * self._open_uniform(step, shape) - 1)).to(torch.float32)

    def truncated_normal(self, step: int, shape: tuple[int, ...]) -> Tensor:
        """Return float32 numbers of variance 1, normal and cut off at 2 standard deviations before scaling."""
        edge = torch.erf(torch.tensor(2.0 / 2**0.5, dtype=torch.float64))
        cut = 2**0.5 * torch.erfinv(edge * (2 * self._open_uniform(step, shape) - 1))
        # Standard deviation of the standard normal cut at +-2.
        return (cut / 0.87962566103423978).to(torch.float32)
