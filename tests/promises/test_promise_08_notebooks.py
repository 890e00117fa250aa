"""Promise 8: an interrupted notebook leaves its final path as it was, no half-run file and no kernel."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.training.stack import facts_of

ROOT = Path(__file__).parents[2]
Count = Callable[[bool], None]
OLD = "the whole notebook of last time"

# `hyla-repro reproduce` on a chapter of this test's own, which sends itself signals, each at a moment.
COMMAND = """
import json, os, sys
from pathlib import Path
import nbclient.client, papermill, papermill.engines
from hyla_repro import cli, paths
from hyla_repro.book import notebook
paths.BOOK = Path(sys.argv[1])
faults = json.loads(sys.argv[2])

def watch(kind, owner, name):
    function = getattr(owner, name)
    def call(*arguments, **named):
        # Each but the write comes once; the fourth write is in the middle of the chapter.
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] == (4 if kind == "writing" else 1):
            for wanted, sent in faults:
                if wanted == kind:
                    os.kill(os.getpid(), sent)
        return function(*arguments, **named)
    setattr(owner, name, call)

seen = {}
watch("before", papermill, "execute_notebook")
watch("starting", nbclient.client.NotebookClient, "start_new_kernel_client")
watch("cleaning", nbclient.client.NotebookClient, "_cleanup_kernel")
watch("writing", papermill.engines, "write_ipynb")
watch("checking", notebook, "_succeeded")
sys.argv[:] = ["hyla-repro", "reproduce", "figa1", "--output", sys.argv[3]]
cli.main()
"""
INT, TERM, KILL = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIGKILL)
WAIT = "time.sleep(60)"


class Case(NamedTuple):
    """What goes wrong: in the middle cell, in the last one, at moments of the program; and the exit code then."""

    code: int
    middle: str = ""
    last: str = ""
    faults: tuple[tuple[str, int], ...] = ()


QUICK = {
    "the last cell calls sys.exit": Case(1, last="sys.exit()"),
    "SIGTERM twice, in a cell and when tidying up": Case(
        143, middle=f"os.kill(os.getppid(), {TERM}); {WAIT}", faults=(("cleaning", TERM),)
    ),
    "SIGKILL in a cell": Case(-KILL, middle=f"os.kill(os.getppid(), {KILL}); {WAIT}"),
}
ALL = {
    "a cell raises": Case(1, middle="1 / 0"),
    "the last cell raises": Case(1, last="1 / 0"),
    "a cell calls sys.exit": Case(1, middle="sys.exit()"),
    "the kernel is killed": Case(1, middle=f"os.kill(os.getpid(), {KILL}); {WAIT}"),
    "the kernel leaves in the last cell": Case(1, last="os._exit(0)"),
    "the kernel is interrupted": Case(1, middle=f"os.kill(os.getpid(), {INT}); {WAIT}"),
    "the kernel is interrupted in the last cell": Case(1, last=f"os.kill(os.getpid(), {INT}); {WAIT}"),
    "SIGTERM before the kernel starts": Case(143, faults=(("before", TERM),)),
    "SIGINT while the kernel starts": Case(130, faults=(("starting", INT),)),
    "SIGTERM while the kernel starts": Case(143, faults=(("starting", TERM),)),
    "SIGINT in a cell": Case(130, middle=f"os.kill(os.getppid(), {INT}); {WAIT}"),
    "SIGTERM in a cell": Case(143, middle=f"os.kill(os.getppid(), {TERM}); {WAIT}"),
    "SIGTERM in the last cell": Case(143, last=f"os.kill(os.getppid(), {TERM}); {WAIT}"),
    "SIGTERM while a part is written": Case(143, faults=(("writing", TERM),)),
    "SIGINT after the last cell": Case(130, faults=(("checking", INT),)),
    "SIGKILL while a part is written": Case(-KILL, faults=(("writing", KILL),)),
    "SIGKILL after the last cell": Case(-KILL, faults=(("checking", KILL),)),
}


def write_chapter(book: Path, *sources: str) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in ("d_model = 128\nseed = 0", *sources)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), book / "figa1-tiny.ipynb")


def reproduce(tmp_path: Path, faults: tuple[tuple[str, int], ...] = ()) -> tuple[int, str, list[int]]:
    """Return the exit code, what was said, and the processes that are still there some seconds later."""
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "book"), json.dumps(faults), str(tmp_path / "out")]
    mark = f"HYLA_REPRO_TEST={uuid.uuid4().hex}"
    environment = dict([mark.split("=")]) | os.environ | {"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    # A file and no pipe: a kernel that is left over would hold that open.
    with (tmp_path / "said").open("w") as said:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=said, stderr=said, timeout=240)
    # A kernel looks every second whether its parent is there.
    deadline = time.monotonic() + 10
    while (left := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if has(pid, mark)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return done.returncode, (tmp_path / "said").read_text(), left


def has(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def check(case: Case, older: bool, tmp_path: Path, count: Count) -> None:
    out = tmp_path / "out"
    out.mkdir(parents=True)
    if older:
        (out / "figa1.ipynb").write_text(OLD)
    first = "import os, sys, time\nassert os.environ['HYLA_REPRO_TEST']"
    write_chapter(tmp_path / "book", first, case.middle, "1 + 1", case.last)
    code, said, left = reproduce(tmp_path, case.faults)
    names = {path.name for path in out.iterdir()}
    named = case.code != 1 or "figa1" in said or "Error" in said or "KeyboardInterrupt" in said
    hint = case.code not in (130, 143) or "stopped; what was trained is in" in said
    count(code == case.code and named and hint)
    count(not left)
    count((out / "figa1.ipynb").read_text() == OLD if older else "figa1.ipynb" not in names)
    # Nobody tidies up after SIGKILL but the next one that comes.
    count(names - {"figa1.ipynb"} <= ({"figa1.part.ipynb"} if code == -KILL else set()))
    if code == -KILL:
        write_chapter(tmp_path / "book", first, "2", "1 + 1", "3")
        code, said, left = reproduce(tmp_path)
        count(code == 0 and not left and [path.name for path in out.iterdir()] == ["figa1.ipynb"])
        cells = json.loads((out / "figa1.ipynb").read_text())["cells"]
        count(all(cell["execution_count"] for cell in cells) and cells[-1]["outputs"][0]["data"]["text/plain"] == ["3"])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for kernels in /proc")
@pytest.mark.parametrize("name", QUICK)
def test_promise_08_an_interrupted_notebook_leaves_nothing(name: str, tmp_path: Path, count: Count) -> None:
    check(QUICK[name], True, tmp_path, count)


@pytest.mark.promises
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for kernels in /proc")
@pytest.mark.parametrize("older", [True, False], ids=["older", "none before"])
@pytest.mark.parametrize("name", [*QUICK, *ALL])
def test_promise_08_a_notebook_interrupted_anyhow_leaves_nothing(
    name: str, older: bool, tmp_path: Path, count: Count
) -> None:
    check((QUICK | ALL)[name], older, tmp_path, count)


# Trains in the kernel; after the fifth step it stops its parent, and goes on once the kernel was told.
TRAINING = """
import json, os, time
from contextlib import contextmanager
from pathlib import Path
from hyla_repro.training import loop, stack
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
advance, catch_signals, told = stack.Stack.advance, loop.catch_signals, []

@contextmanager
def watched():
    with catch_signals() as received:
        told.append(received)
        yield received

def stopping(self):
    advance(self)
    if self.step == 5:
        os.kill(os.getppid(), SENT)
        while not told[0]:
            time.sleep(0.01)

stack.Stack.advance, loop.catch_signals = stopping, watched
run = Experiment.model_validate_json(Path("run.json").read_text())
loop.train([run], Ledger(Path("runs")), progress=False)
"""


@pytest.mark.promises
@pytest.mark.parametrize("sent", [INT, TERM])
def test_promise_08_a_chapter_that_trains_saves_a_checkpoint(
    sent: int, run: Experiment, tmp_path: Path, count: Count
) -> None:
    (tmp_path / "out").mkdir()
    write_chapter(tmp_path / "book", TRAINING.replace("SENT", str(sent)), "1 + 1")
    (tmp_path / "book" / "run.json").write_text(run.model_dump_json())
    code, said, left = reproduce(tmp_path)
    sound, damaged = Ledger(tmp_path / "book" / "runs").load_checkpoints(run)
    count(code == 128 + sent and "Go on with: hyla-repro reproduce figa1" in said and not left)
    count(not damaged and [facts_of(content)["step"] for content in sound] == [5] and not list(tmp_path.glob("out/*")))
