"""What a training process asks of its system: signals between steps, sibling processes, and memory that is kept."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_STOPPING = (signal.SIGINT, signal.SIGTERM)
STOPPED = (130, 143)  # what a shell reports of a process that one of these two ended


def program() -> list[str]:
    """Return how this program was called: as hyla-repro, as a module, or as a file with studies that calls `main`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "hyla_repro"]
    return [sys.executable, sys.argv[0]] if called.suffix == ".py" else [sys.argv[0]]


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into SystemExit(130) or SystemExit(143), wherever the program is.

    Once it stops, more of them are ignored until the process ends: they would cut short what saves and tidies up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ignore_more() -> None:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)

    def stop(number: int, frame: object) -> None:
        ignore_more()
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in _STOPPING}
    try:
        yield
    except SystemExit as stopped:
        if stopped.code in STOPPED:
            previous = {}
            ignore_more()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of being interrupted in the middle of a step."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {n: signal.signal(n, lambda number, frame: received.append(number)) for n in _STOPPING}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_siblings(command: Sequence[str], count: int) -> list[int]:
    """Run a command in several processes, which outlive neither this one's SIGINT or SIGTERM nor an error here.

    Returns: their exit codes.
    Raises: SystemExit with 130 or 143 after a signal, once all have stopped by themselves.
    """
    children: list[subprocess.Popen[bytes]] = []
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        for child in children:
            child.send_signal(number)

    # Before the first process starts, so that no signal finds some of them unwatched.
    previous = {number: signal.signal(number, forward) for number in _STOPPING}
    try:
        for place in range(count):
            # tqdm reads its options from the environment: one line of the terminal for each process.
            environment = os.environ | {"TQDM_POSITION": str(place)}
            children.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            for number in received[:1]:  # it came before this one was listed
                children[-1].send_signal(number)
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
                child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received:
        raise SystemExit(128 + received[0])
    return codes


def keep_freed_memory() -> None:
    """Make glibc reuse the buffers of a step instead of returning them to the system after each.

    The page faults of getting them back took 18 of 79 ms of a HYLA step on one core; other C libraries ignore this.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_threshold, trim_threshold = -3, -1
        mallopt(mmap_threshold, 1 << 25)
        mallopt(trim_threshold, (1 << 31) - 1)
