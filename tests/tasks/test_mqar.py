"""Multi-query associative recall: sequences as the original has them, the law of the questions, and scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hyla_repro.counter_rng import CounterRNG
from hyla_repro.tasks.mqar.task import MQAR, NOT_ASKED


@given(n_pairs=st.integers(1, 5), extra=st.integers(0, 9), more=st.integers(0, 7), seed=st.integers(0, 99))
def test_every_key_is_asked_for_once_and_its_value_is_the_target(
    n_pairs: int, extra: int, more: int, seed: int
) -> None:
    task = MQAR(n_pairs, 4 * n_pairs + extra, 2 * n_pairs + 2 + more, power=0.5, seed=seed)
    batch = task.batch("train", 3, 7)
    half = task.vocab_size // 2
    for tokens, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        keys, values = tokens[0 : 2 * n_pairs : 2], tokens[1 : 2 * n_pairs : 2]
        assert len(set(keys)) == len(set(values)) == n_pairs
        assert all(1 <= key < half for key in keys)
        assert all(half <= value < task.vocab_size for value in values)
        asked = [place for place, target in enumerate(targets) if target != NOT_ASKED]
        assert sorted(tokens[place] for place in asked) == sorted(keys)
        assert all(targets[place] == dict(zip(keys, values, strict=True))[tokens[place]] for place in asked)
        assert all(place >= 2 * n_pairs and place % 2 == 0 for place in asked)
        rest = set(range(2 * n_pairs, task.n_tokens)) - set(asked)
        assert all(tokens[place] == 0 for place in rest)


def test_questions_follow_the_power_law() -> None:
    """With two pairs, the slots drawn have the probabilities of successive draws without replacement."""
    task = MQAR(n_pairs=2, n_tokens=12, vocab_size=12, power=0.1)
    asked = task.batch("train", 0, 40_000).targets[:, 4::2] != NOT_ASKED
    weights = torch.arange(1, 5, dtype=torch.float64) ** -0.9
    p = weights / weights.sum()
    first_or_second = p + torch.stack([sum((p[j] * p[i] / (1 - p[j]) for j in range(4) if j != i), torch.tensor(0.0))
                                       for i in range(4)])  # fmt: skip
    torch.testing.assert_close(asked.double().mean(0), first_or_second, atol=0.012, rtol=0)


def test_power_one_spreads_questions_evenly() -> None:
    asked = MQAR(2, 12, 12, power=1.0).batch("train", 0, 20_000).targets[:, 4::2] != NOT_ASKED
    torch.testing.assert_close(asked.double().mean(0), torch.full((4,), 0.5).double(), atol=0.015, rtol=0)


def test_a_sequence_worked_out_by_hand() -> None:
    """One pair and its only slot: key below half, value at or above it, question right after the pair."""
    task = MQAR(n_pairs=1, n_tokens=4, vocab_size=4)
    batch = task.batch("test", 0, 3)
    key, values = 1, batch.inputs[:, 1]
    assert torch.equal(batch.inputs[:, [0, 2, 3]], torch.tensor([[key, key, 0]] * 3))
    assert set(values.tolist()) <= {2, 3}
    assert torch.equal(batch.targets[:, 2], values)
    assert (batch.targets[:, [0, 1, 3]] == NOT_ASKED).all()


def test_steps_splits_and_seeds_are_told_apart_and_sizes_only_append() -> None:
    task = MQAR(4, 20, 40)
    batch = task.batch("train", 5, 6)
    assert all(torch.equal(part[:4], other) for part, other in zip(batch, task.batch("train", 5, 4), strict=True))
    for other in (task.batch("train", 6, 6), task.batch("test", 5, 6), MQAR(4, 20, 40, seed=1).batch("train", 5, 6)):
        assert not torch.equal(batch.inputs, other.inputs)
    with pytest.raises(ValueError, match="unknown split 'heldout'"):
        task.batch("heldout", 0, 1)


def test_float32_waiting_times_would_draw_the_same_slots_nearly_always() -> None:
    """So the order that float64 settles is far from its rounding."""
    task = MQAR(4, 64, 40)
    waits = task.tables("train")["waits"]
    uniform = CounterRNG(0, "mqar/train/slots").uniform(0, (2000, len(waits))).double() + 2.0**-25

    def first(times: Tensor) -> Tensor:
        return times.argsort(stable=True, dim=-1)[:, :4]

    exact, rough = -uniform.log() * waits, -uniform.float().log() * waits.float()
    assert (first(exact) != first(rough)).any(-1).float().mean() < 1e-3
    gaps = exact.sort(-1).values.diff(dim=-1)
    assert gaps.min() > 1e-10


# --- loss and score --------------------------------------------------------------------------------------------


def outputs_for(task: MQAR, said: Tensor) -> Tensor:
    return 20 * torch.nn.functional.one_hot(said.clamp(min=0), task.vocab_size).float()


def test_only_questions_count() -> None:
    task = MQAR(2, 8, 10)
    batch = task.batch("test", 0, 3)
    outputs = outputs_for(task, batch.targets)
    assert task.score(outputs, batch).tolist() == [1.0, 1.0, 1.0]
    assert task.loss(outputs, batch) < 1e-6
    noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    elsewhere = torch.where((batch.targets == NOT_ASKED)[..., None], noise, outputs)
    assert torch.equal(task.loss(elsewhere, batch), task.loss(outputs, batch))
    assert task.loss(torch.zeros_like(outputs), batch).item() == pytest.approx(math.log(10))


def test_the_score_is_the_share_of_questions_answered() -> None:
    task = MQAR(4, 16, 20)
    batch = task.batch("test", 0, 2)
    said = batch.targets.clone()
    (places,) = (said[0] != NOT_ASKED).nonzero(as_tuple=True)
    said[0, places[0]] = 0
    assert task.score(outputs_for(task, said), batch).tolist() == [0.75, 1.0]
    with pytest.raises(ValueError, match=r"outputs has shape \(2, 15, 20\): this task needs \(2, 16, 20\)"):
        task.score(torch.zeros(2, 15, 20), batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_pairs": 0}, "n_pairs=0 is out of range: use 1"),
        ({"n_tokens": 15}, "n_tokens=15 is out of range: use 16 to 65536; a pair and its slot have two tokens each"),
        ({"vocab_size": 9}, "vocab_size=9 is out of range: use 10 to 65536; half are keys, but for token 0"),
        ({"power": 0.0}, "power=0.0 is out of range: use a number above 0, up to 1"),
        ({"power": 1.5}, "power=1.5 is out of range"),
        ({"seed": 2**32}, "seed=4294967296 is out of range"),
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MQAR(**arguments)
