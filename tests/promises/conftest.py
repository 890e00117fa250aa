"""Faults are counted: with HYLA_REPRO_FAULTS=FILE.csv, every fault is written with how often it was tried and survived.

`benchmarks/record.py FILE.csv` then puts the table into data/, from where the book takes it.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from hyla_repro.training.provenance import provenance

Count = Callable[[bool], None]

_tried: Counter[tuple[str, str]] = Counter()
_survived: Counter[tuple[str, str]] = Counter()


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Count]:
    """Note one try and whether the promise was kept; all must have been at the end of a test."""
    kept: list[bool] = []
    yield kept.append
    number, words = re.fullmatch(r"test_promise_(\d\d)_(\w+)", request.node.originalname).groups()
    fault = number, words.replace("_", " ")
    _tried[fault] += len(kept)
    _survived[fault] += sum(kept)
    assert kept, "this promise was not tried"
    assert all(kept), f"kept {sum(kept)} of {len(kept)} times"


def pytest_sessionfinish() -> None:
    path = os.environ.get("HYLA_REPRO_FAULTS")
    if not path or not _tried:
        return
    facts = provenance("cpu", compiled=False)
    facts = {name: facts[name] for name in ("device", "instruction_set", "threads", "torch", "commit", "date")}
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["promise", "fault", "tried", "survived", *facts])
        for (number, fault), tried in sorted(_tried.items()):
            writer.writerow([int(number), fault, tried, _survived[number, fault], *facts.values()])
