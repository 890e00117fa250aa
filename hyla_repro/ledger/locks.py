"""Who trains a run: a lock that dies with its process on one machine, and a lease with a heartbeat between machines."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

LOCK, LEASE = "lock", "lease"
BEAT_SECONDS = 10.0
# Without a heartbeat for this long, a holder on another machine counts as dead.
LEASE_SECONDS = 60.0


class LockedError(RuntimeError):
    """Somebody else holds the folder."""


class Holder(NamedTuple):
    """A process that holds a folder; the token tells one holding from the next."""

    pid: int
    host: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def _myself() -> Holder:
    return Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"), uuid.uuid4().hex)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path, now: float) -> float:
    """Return how long ago a file was touched, endless if it is gone."""
    try:
        return now - path.stat().st_mtime
    except OSError:
        return float("inf")


def _take(file: IO[str]) -> bool:
    # Whoever asks for a holder has the lock for an instant, which must not look like holding it.
    for wait in (0.0, 0.05, 0.1, 0.2, 0.4):
        time.sleep(wait)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder alone.

    On one machine the operating system's lock decides; it ends with the process, however that ends. Machines that
    share the folder need not share such locks, so a lease decides between them: a file that its holder touches every
    BEAT_SECONDS. A holder that sleeps for LEASE_SECONDS and wakes up again is then not alone; it would write the same
    result once more.

    Raises: LockedError naming who holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        if not _take(file):
            raise LockedError(str(holder(folder) or "another process"))
        myself = _myself()
        try:
            _claim(folder, myself)
            with _heartbeat(folder / LEASE):
                yield
        finally:
            if _read(folder / LEASE) == myself:
                (folder / LEASE).unlink(missing_ok=True)
            fcntl.flock(file, fcntl.LOCK_UN)


def _claim(folder: Path, myself: Holder) -> None:
    """Make the lease mine, unless somebody on another machine keeps it alive."""
    lease, draft = folder / LEASE, folder / f".{LEASE}.{myself.token}"
    try:
        while True:
            draft.write_text(json.dumps(myself._asdict()))
            now = draft.stat().st_mtime  # the clock of the folder's machine, which also dates the lease
            with suppress(FileExistsError):
                os.link(draft, lease)
                return
            other = _read(lease)
            # On this machine only one process gets this far: an older lease from here is a dead process's.
            alive = other is not None and other.host != myself.host and _age(lease, now) < LEASE_SECONDS
            if alive:
                raise LockedError(str(other))
            # Several may find it dead; who makes this mark of this very lease first may replace it.
            mark = folder / f".{LEASE}.after-{other.token if other else 'unknown'}"
            try:
                os.link(draft, mark)
            except FileExistsError:
                if _age(mark, now) < LEASE_SECONDS:
                    raise LockedError(str(_read(mark) or "another process")) from None
                mark.unlink(missing_ok=True)  # whoever made it died before it came to anything
                continue
            draft.replace(lease)
            mark.unlink(missing_ok=True)
            return
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _heartbeat(lease: Path) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(lease)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def holder(folder: Path) -> Holder | None:
    """Return who holds a folder, or None; writes nothing."""
    lease = _read(folder / LEASE)
    try:
        with (folder / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return lease or Holder(0, socket.gethostname(), "now", "")
    except OSError:
        pass
    elsewhere = lease is not None and lease.host != socket.gethostname()
    return lease if elsewhere and _age(folder / LEASE, time.time()) < LEASE_SECONDS else None


def is_sibling(other: Holder | None) -> bool:
    """Return whether a holder was started by the same command as this process, and is another one."""
    if other is None or other.host != socket.gethostname() or other.pid == os.getpid() or os.getpid() == os.getpgrp():
        return False
    with suppress(ProcessLookupError):
        return os.getpgid(other.pid) == os.getpgrp()
    return False
