"""Promise 3: every damaged file is found before it is used, named, and the good one before it taken."""

import random
from collections.abc import Callable

import pytest

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import RESULT, Ledger
from hyla_repro.training.loop import train
from hyla_repro.training.stack import Stack, facts_of

Make = Callable[..., Experiment]
Count = Callable[[bool], None]


def damaged(content: bytes, kind: str, choose: random.Random) -> bytes:
    if kind == "cut":
        return content[: choose.randrange(len(content))]
    flipped = bytearray(content)
    flipped[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    return bytes(flipped)


@pytest.mark.parametrize("kind", ["cut", "flipped"])
@pytest.mark.parametrize("times", [40, pytest.param(200, marks=pytest.mark.promises)])
def test_promise_03_damaged_checkpoints_are_passed_over(
    times: int, kind: str, run: Experiment, ledger: Ledger, count: Count
) -> None:
    stack, choose = Stack([run]), random.Random(kind)
    for _ in range(2):
        stack.advance()
        ledger.save_checkpoint(run, stack.step, stack.to_bytes(0, {}))
    older, newest = sorted(ledger.folder(run).glob("checkpoint-*"))
    good = newest.read_bytes()
    for _ in range(times):
        newest.write_bytes(damaged(good, kind, choose))
        sound, found = ledger.load_checkpoints(run)
        count(sound == [older.read_bytes()] and found == [newest] and facts_of(sound[0])["step"] == 1)


@pytest.mark.parametrize("kind", ["cut", "flipped"])
@pytest.mark.parametrize("times", [40, pytest.param(200, marks=pytest.mark.promises)])
def test_promise_03_damaged_results_are_none(
    times: int, kind: str, run: Experiment, ledger: Ledger, count: Count
) -> None:
    assert train([run], ledger, progress=False) == []
    choose = random.Random(kind)
    files = sorted(path for path in ledger.folder(run).iterdir() if path.name not in ("lock", "lease"))
    assert RESULT in {path.name for path in files}
    for index in range(times):
        path = files[index % len(files)]
        good = path.read_bytes()
        path.write_bytes(damaged(good, kind, choose))
        try:
            ledger.result(run)
            refused = False
        except DataError as error:
            refused = str(path) in str(error)
        count(refused and ledger.state(run) == "damaged")
        path.write_bytes(good)
    assert ledger.state(run) == "done"


def test_promise_03_files_of_another_run_are_found(make_run: Make, ledger: Ledger, count: Count) -> None:
    ours, theirs = make_run(seed=0), make_run(seed=1)
    assert train([ours, theirs], ledger, progress=False) == []
    for path in list(ledger.folder(ours).iterdir()):
        path.write_bytes((ledger.folder(theirs) / path.name).read_bytes())
    count(ledger.state(ours) == "damaged")
    with pytest.raises(ValueError, match=f"checkpoint of run {theirs.id} cannot continue run {ours.id}"):
        Stack([ours]).from_bytes(0, Stack([theirs]).to_bytes(0, {}))
    count(True)
