"""Errors name the value, what is allowed and why."""

import numpy as np
import pytest
import torch

from hyla_repro.errors import whole_number


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_kind_become_ints(value: object) -> None:
    number = whole_number("step", value, 0, "because", 5)
    assert type(number) is int
    assert number == 3


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.float32(3), torch.tensor([3, 4]), torch.tensor(3.0)])
def test_what_is_no_whole_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"^step=.* is not a whole number$"):
        whole_number("step", value, 0, "because")


def test_range_and_reason_are_named() -> None:
    assert [whole_number("n", end, 1, "because", 5) for end in (1, 5)] == [1, 5]
    for value in (0, 6):
        with pytest.raises(ValueError, match=rf"^n={value} is out of range: use 1 to 5; because$"):
            whole_number("n", value, 1, "because", 5)
    with pytest.raises(ValueError, match=r"^n=0 is out of range: use 1 or more; because$"):
        whole_number("n", 0, 1, "because")
    assert whole_number("n", 2**80, 1, "because") == 2**80
