"""Locks: one holder at a time, on one machine and between machines that share a folder but no lock."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyla_repro.ledger import locks
from hyla_repro.ledger.locks import LEASE, LEASE_SECONDS, LockedError, hold, holder

ROOT = Path(__file__).parents[2]

# Another machine: a name of its own, and no lock in common.
RACER = """
import fcntl, socket, sys, time
from pathlib import Path
folder, name, until = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if name:
    socket.gethostname = lambda: name
    fcntl.flock = lambda file, operation: None
from hyla_repro.ledger.locks import LockedError, hold
time.sleep(max(0.0, until - time.time()))
try:
    with hold(folder):
        print("held", flush=True)
        time.sleep(float(sys.argv[4]))
except LockedError as error:
    print(f"refused by {error}", flush=True)
"""


def start(folder: Path, name: str = "", until: float = 0.0, hold_for: float = 600.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RACER, str(folder), name, str(until), str(hold_for)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one on another machine."""
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)


@pytest.mark.parametrize("machines", [1, 8], ids=["one machine", "eight machines"])
def test_one_of_eight_racers_wins(machines: int, tmp_path: Path) -> None:
    until = time.time() + 3.0
    racers = [start(tmp_path / "run", f"m{index}" if machines > 1 else "", until, 3.0) for index in range(8)]
    said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert said[0] == "held"
    assert all(words.startswith("refused by process ") for words in said[1:]), said
    assert holder(tmp_path / "run") is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]


def test_a_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    with start(tmp_path) as racer:
        assert racer.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {racer.pid} on {socket.gethostname()} since "):
            hold(tmp_path).__enter__()
        racer.kill()
        racer.wait()
    started = time.monotonic()
    with hold(tmp_path):
        assert time.monotonic() - started < 5
        assert holder(tmp_path).pid == os.getpid()
    assert not (tmp_path / LEASE).exists()


@pytest.mark.usefixtures("elsewhere")
def test_a_holder_on_another_machine_is_followed_when_its_heart_stops(tmp_path: Path) -> None:
    other = locks.Holder(1, "far away", "2026-01-01 00:00:00", "abc")
    (tmp_path / LEASE).write_text(json.dumps(other._asdict()))
    assert holder(tmp_path) == other
    with pytest.raises(LockedError, match="process 1 on far away since 2026-01-01"):
        hold(tmp_path).__enter__()
    past = time.time() - LEASE_SECONDS - 1
    os.utime(tmp_path / LEASE, (past, past))
    assert holder(tmp_path) is None
    with hold(tmp_path):
        assert json.loads((tmp_path / LEASE).read_text())["host"] == "elsewhere"
    assert not (tmp_path / LEASE).exists()


def test_eight_machines_follow_a_dead_one_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text(json.dumps(locks.Holder(1, "far away", "then", "abc")._asdict()))
    past = time.time() - LEASE_SECONDS - 1
    os.utime(tmp_path / LEASE, (past, past))
    until = time.time() + 3.0
    racers = [start(tmp_path, f"m{index}", until, 3.0) for index in range(8)]
    said = sorted(racer.communicate(timeout=60)[0].strip() for racer in racers)
    assert said[0] == "held"
    assert all(words.startswith("refused by ") for words in said[1:]), said


@pytest.mark.usefixtures("elsewhere")
def test_a_follower_that_died_on_the_way_blocks_nobody(tmp_path: Path) -> None:
    other = locks.Holder(1, "far away", "then", "abc")
    for name in (LEASE, ".lease.after-abc"):
        (tmp_path / name).write_text(json.dumps(other._asdict()))
        past = time.time() - LEASE_SECONDS - 1
        os.utime(tmp_path / name, (past, past))
    with hold(tmp_path):
        assert json.loads((tmp_path / LEASE).read_text())["host"] == "elsewhere"
    assert not list(tmp_path.glob(".lease*"))


def test_the_lease_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    with hold(tmp_path):
        os.utime(tmp_path / LEASE, (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / LEASE).stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / LEASE).stat().st_mtime > time.time() - 60


def test_a_lease_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text("{")
    with hold(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


def test_siblings_are_other_processes_of_the_same_command(tmp_path: Path) -> None:
    with hold(tmp_path):
        assert not locks.is_sibling(holder(tmp_path))
    assert not locks.is_sibling(None)
    assert not locks.is_sibling(locks.Holder(1, socket.gethostname(), "then", ""))
    parent = locks.Holder(os.getppid(), socket.gethostname(), "then", "")
    same = os.getpgid(os.getppid()) == os.getpgrp() != os.getpid()
    assert locks.is_sibling(parent) == same
