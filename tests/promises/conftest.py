"""Faults are counted: with HYLA_REPRO_FAULTS=FILE.csv, every promise adds how often it was tried and kept."""

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Count = Callable[[bool], None]


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Count]:
    """Note one try and whether the promise was kept; all must have been at the end of a test."""
    kept: list[bool] = []
    yield kept.append
    path = os.environ.get("HYLA_REPRO_FAULTS")
    if path and kept:
        new = not Path(path).exists()
        with open(path, "a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["test", "tried", "kept"])
            writer.writerow([request.node.name, len(kept), sum(kept)])
    assert kept, "this promise was not tried"
    assert all(kept), f"kept {sum(kept)} of {len(kept)} times"
