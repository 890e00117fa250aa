"""What every task does alike: batches that cannot be are refused, and each step is its own."""

from collections.abc import Callable

import pytest
import torch

from hyla_repro.tasks import TASKS


@pytest.fixture(autouse=True)
def _series(write_archive: Callable[[], object]) -> None:
    write_archive()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("step", "size", "message"),
    [
        (0, 0, r"size=0 is out of range: use 1 or more; a batch has at least one (sequence|problem)"),
        (0, -1, r"size=-1 is out of range"),
        (-1, 2, r"step=-1 is out of range: use 0 to 9223372036854775807; it is two words of the random numbers"),
        (2**63, 2, r"step=9223372036854775808 is out of range"),
        (True, 2, r"step=True is not a whole number"),
    ],
)
def test_batch_that_cannot_be_is_refused(name: str, step: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TASKS[name]().batch("train", step, size)


@pytest.mark.parametrize("name", TASKS)
def test_the_last_step_is_one_of_its_own(name: str) -> None:
    first, last = (TASKS[name]().batch("train", step, 2).inputs for step in (0, 2**63 - 1))
    assert not torch.equal(first, last)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_moves_to_a_device_as_a_whole(name: str) -> None:
    batch = TASKS[name]().batch("train", 0, 2)
    moved = batch.to("meta")
    assert type(moved) is type(batch)
    assert [(part.device.type, part.shape) for part in moved] == [("meta", part.shape) for part in batch]
