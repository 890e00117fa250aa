"""Sharing runs with others: what they leave is trained, and nobody waits longer than a dead one seems alive."""

import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import pytest

from hyla_repro import studies
from hyla_repro.cli import main
from hyla_repro.errors import DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.studies import Chapter, Study
from hyla_repro.training import others
from hyla_repro.training.others import train_with_others


class Script(Ledger):
    """A ledger whose states follow a script, one line for each look, and what was done about them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
        self.lines, self.done, self.now = list(lines), list[str](), 0.0
        monkeypatch.setattr(others, "time", self)

    def states(self, runs: Iterable[Experiment]) -> dict[str, str]:
        return {str(place): state for place, state in enumerate(self.lines.pop(0).split())}

    def train(self, seconds: float | None) -> None:
        self.done.append("train" if seconds is None else f"train {seconds:g}")
        self.now += 10

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.done.append(f"sleep {seconds:g}")
        self.now += seconds

    def run(self, seconds: float | None = None) -> list[str]:
        train_with_others(self.train, [], self, seconds)
        assert not self.lines
        return self.done


@pytest.mark.parametrize(
    ("lines", "done"),
    [
        (["done diverged"], ["train"]),
        # What is alive after a lease is left to its holder; what is not is taken over.
        (["done training", "done training"], ["train", "sleep 70", "train"]),
        (["done training", "done paused", "done done"], ["train", "sleep 70", "train", "train"]),
        (["done training", "training done"], ["train", "sleep 70", "train"]),
        # Something stands in the way of a run that nobody holds: no reason to try without a pause.
        (["paused done", "paused done", "done done"], ["train", "train", "sleep 70", "train"]),
    ],
)
def test_what_is_left_is_looked_at_again(lines: list[str], done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert Script(monkeypatch, *lines).run() == done


def test_all_of_it_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Script(monkeypatch, "training", "paused").run(30.0) == ["train 30", "sleep 20", "train 0"]
    assert Script(monkeypatch, "paused").run(5.0) == ["train 5"]


def test_a_run_that_diverged_is_said_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(seconds: float | None, fail: list[int] = [1]) -> None:  # noqa: B006
        if fail:
            fail.clear()
            raise DivergedError("loss is nan", 3, None)

    with pytest.raises(DivergedError, match="loss is nan"):
        train_with_others(train, [], Script(monkeypatch, "diverged paused", "diverged done"), None)


@pytest.mark.parametrize("held", [False, True])
def test_a_sharing_worker_leaves_with_75_while_work_is_left_that_nobody_has(
    held: bool, make_run: Callable[..., Experiment], ledger: Ledger, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = make_run()
    monkeypatch.setattr(studies, "STUDIES", [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: [run]),))])
    monkeypatch.setattr(others, "_UNTIL_DEAD", 0.0)
    monkeypatch.setenv("HYLA_REPRO_RUNS", str(ledger.root))
    monkeypatch.setattr(sys, "argv", ["hyla-repro", "run", "fig2c", "--share", "--budget", "30m" if held else "0s"])
    with ledger.lock(run) if held else nullcontext(), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if held else 75)
    assert ("others are training all of it" in capsys.readouterr().err) == held
