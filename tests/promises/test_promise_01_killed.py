"""Promise 1: a run that is killed at any moment and continued ends bit-identical to one that never was."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from hyla_repro import studies
from hyla_repro.book.collect import collect
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import CURVE, MODEL, Ledger
from hyla_repro.results.store import Store
from hyla_repro.studies import Chapter, Study
from hyla_repro.training import loop
from hyla_repro.training.provenance import compiler_available
from hyla_repro.training.stack import Stack

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]

# Every try is a process of its own, forked off one that has imported torch and done nothing with it.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["hyla_repro.book.collect", "hyla_repro.training.loop"])


class Clock:
    """Time goes on by a third of what separates two checkpoints whenever it is looked at."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        cls.now += loop._CHECKPOINT_SECONDS / 3
        return cls.now


def watcher(moment: str, number: int) -> tuple[dict[str, int], Callable[..., None]]:
    """Return the moments seen, and a function that counts the calls of another and dies at the n-th of a kind."""
    seen: dict[str, int] = {}

    def watch(kind: str, owner: Any, name: str, after: bool = False) -> None:
        function = getattr(owner, name)
        seen[kind] = 0

        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named) if after else None
            seen[kind] += 1
            if (kind, seen[kind]) == (moment, number):
                os.kill(os.getpid(), signal.SIGKILL)
            return result if after else function(*arguments, **named)

        setattr(owner, name, call)

    return seen, watch


def trainee(moment: str, number: int, said: Connection, root: Path, members: list[Experiment], stacked: bool) -> None:
    """Train, be killed at the n-th moment of a kind, or else say how many there were."""
    seen, watch = watcher(moment, number)
    watch("step", Stack, "advance", after=True)
    watch("evaluation", Stack, "evaluate")
    watch("write", os, "fsync")
    watch("rename", Path, "replace")
    watch("clean-up", Path, "unlink", after=True)
    loop.torch.set_num_threads(1)
    loop.time = Clock
    if stacked:
        loop._stack_size = lambda members, device: len(members)
    assert loop.train(members, Ledger(root), progress=False) == []
    said.send(seen)


def collector(moment: str, number: int, said: Connection, root: Path, members: list[Experiment], data: Path) -> None:
    """Collect finished runs, and be killed likewise."""
    seen, watch = watcher(moment, number)
    watch("write", os, "fsync")
    watch("rename", Path, "replace", after=True)
    watch("clean-up", shutil, "rmtree", after=True)
    os.environ["HYLA_REPRO_RUNS"] = str(root)
    studies.STUDIES[:] = [Study("tiny", "Tiny", (Chapter("fig2c", lambda preset: members),))]
    collect(Store(data), presets=("smoke",))
    said.send(seen)


def in_process(target: Callable[..., None], *arguments: Any, moment: str = "", number: int = 0) -> tuple[Any, Any]:
    """Return the exit code of a process, negative for a signal, and what it said."""
    receiving, sending = processes.Pipe(duplex=False)
    process = processes.Process(target=target, args=(moment, number, sending, *arguments))
    process.start()
    sending.close()
    process.join()
    return process.exitcode, receiving.recv() if process.exitcode == 0 else None


def outcome(root: Path, members: list[Experiment]) -> list[object]:
    ledger, found = Ledger(root), []
    for run in members:
        result = ledger.result(run)
        found.append([ledger.read(run, MODEL), ledger.read(run, CURVE), result["scores"], result["train_loss"]])
        found.append(sorted(path.name for path in ledger.folder(run).iterdir()))
    return found


@pytest.mark.parametrize("stacked", [False, True], ids=["single", "stacked"])
@pytest.mark.parametrize(
    ("variant", "kills"),
    [("hyla", 5), *(pytest.param(v, 25, marks=pytest.mark.promises) for v in ("hyla", "softmax", "hyla_deep"))],
)
def test_promise_01_killed_and_continued_is_bit_identical(
    variant: str, kills: int, stacked: bool, make_run: Make, tmp_path: Path, count: Callable[[bool], None]
) -> None:
    members = [make_run(variant, seed=seed) for seed in range(2 if stacked else 1)]
    _, total = in_process(trainee, tmp_path / "straight", members, stacked)
    expected = outcome(tmp_path / "straight", members)
    choose = random.Random(f"{variant} {stacked}")
    for trial in range(kills):
        moment, root = list(total)[trial % len(total)], tmp_path / f"trial {trial}"
        number = choose.randint(1, total[moment])
        code, _ = in_process(trainee, root, members, stacked, moment=moment, number=number)
        assert code == -signal.SIGKILL
        in_process(trainee, root, members, stacked)
        count(outcome(root, members) == expected)


def test_promise_01_killed_while_collecting_and_collected_again(
    make_run: Make, tmp_path: Path, count: Callable[[bool], None]
) -> None:
    members, root = [make_run(seed=seed) for seed in range(2)], tmp_path / "runs"
    in_process(trainee, root, members, False)

    def committed(data: Path) -> dict[str, bytes]:
        return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}

    def prepared(name: str) -> Path:
        # With one run collected before, so that there are old files to keep.
        Store(tmp_path / name).write({})
        in_process(collector, root, members[:1], tmp_path / name)
        return tmp_path / name

    straight = prepared("straight")
    _, total = in_process(collector, root, members, straight)
    assert sorted(committed(straight)) == ["curves.csv", "manifest.json", "runs.csv"]
    for moment, number in ((kind, n) for kind, times in total.items() for n in range(1, times + 1)):
        data = prepared(f"{moment} {number}")
        code, _ = in_process(collector, root, members, data, moment=moment, number=number)
        assert code == -signal.SIGKILL
        in_process(collector, root, members, data)
        count(committed(data) == committed(straight) and Store(data).verify() == 2)


COMPILED = """
import sys
from pathlib import Path
import torch
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.training import loop
torch.set_num_threads(1)
loop._COMPILE_FROM_STEPS = 0
assert loop.train([Experiment.model_validate_json(sys.argv[2])], Ledger(Path(sys.argv[1])), progress=False) == []
"""


def train_compiled(root: Path, run: Experiment, cache: Path, kill_at: int = 0) -> tuple[int, str]:
    """Train compiled; kill the process and its compilers as soon as they have begun so many libraries and headers."""
    cache.mkdir(exist_ok=True)
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache / "own"), "TMPDIR": str(cache)}
    command = [sys.executable, "-c", COMPILED, str(root), run.model_dump_json()]
    with (root.parent / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=said, start_new_session=True)
        while process.poll() is None:
            if kill_at and len([*cache.glob("*/*/*/*.so"), *cache.glob("*/*/*.gch")]) >= kill_at:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        code = process.wait()
        said.seek(0)
        return code, said.read()


@pytest.mark.promises
def test_promise_01_killed_while_compiling_and_continued(
    make_run: Make, tmp_path: Path, count: Callable[[bool], None]
) -> None:
    """The kills share a cache, as those of a user do, and come when a file has just been begun."""
    if not compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    run = make_run()
    assert train_compiled(tmp_path / "straight", run, tmp_path / "sound") == (0, "")
    total = len([*tmp_path.glob("sound/*/*/*/*.so"), *tmp_path.glob("sound/*/*/*.gch")])
    expected = outcome(tmp_path / "straight", [run])
    for kill_at in (1, *range(4, total, 6), total):
        code, _ = train_compiled(tmp_path / "killed", run, tmp_path / "cache", kill_at)
        count(code == -signal.SIGKILL)
    count(train_compiled(tmp_path / "killed", run, tmp_path / "cache") == (0, ""))
    count(outcome(tmp_path / "killed", [run]) == expected)
    result = Ledger(tmp_path / "killed").result(run)
    count(result["provenance"]["compiled"] is True)
