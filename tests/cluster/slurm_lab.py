"""A Slurm of two nodes on this machine, each with a host name of its own, so neither takes the other for itself."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
NODES = ("one", "two")


def missing() -> list[str]:
    """Return what this machine lacks for such a cluster."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [tool for tool in TOOLS if not shutil.which(tool, path=path)] + ["root"] * (os.geteuid() != 0)


def until(true: Callable[[], object], seconds: float = 900) -> None:
    """Wait until something holds; an AssertionError says what did not."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {true.__doc__ or true}"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Lab:
    """The daemons, all of them this one's own, with everything that they write in one folder."""

    def __init__(self, state: Path) -> None:
        self.state, self.nodes = state, dict[str, subprocess.Popen[bytes]]()
        (state / "state").mkdir(parents=True)
        controller, first, second = _free_ports(3)
        text = (Path(__file__).parent / "slurm.conf").read_text()
        facts = {"host": socket.gethostname(), "state": state, "controller_port": controller, "first_port": first,
                 "second_port": second}  # fmt: skip
        for name, value in facts.items():
            text = text.replace(f"{{{name}}}", str(value))
        self.configuration = state / "slurm.conf"
        self.configuration.write_text(text)
        self.environment = {"SLURM_CONF": str(self.configuration), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        key = state / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        files = [
            f"--{name}={state}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
        ]
        self.daemons = [self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *files)]
        until((state / "munge.socket").exists, 30)
        self.daemons.append(self._daemon("slurmctld", "-D"))
        for node in NODES:
            self.start(node)
        until(lambda: self.call("sinfo", "--noheader", "--format=%T").split() == ["idle"], 60)

    def _daemon(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.state / "daemons.log").open("ab") as log:
            return subprocess.Popen(command, env=os.environ | self.environment, stdout=log, stderr=log)

    def start(self, node: str) -> None:
        """Start a node, under its own host name."""
        self.nodes[node] = self._daemon("unshare", "--uts", "sh", "-c", f"hostname {node} && exec slurmd -D -N {node}")

    def call(self, *command: str) -> str:
        """Return what a command of Slurm says."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def processes(self, node: str) -> list[int]:
        """Return all that runs on a node: the processes with its host name."""
        space = os.readlink(f"/proc/{self.nodes[node].pid}/ns/uts")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns" / "uts") == space:
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def kill(self, node: str) -> None:
        """Kill all of a node at once."""
        assert os.readlink(f"/proc/{self.nodes[node].pid}/ns/uts") != os.readlink("/proc/self/ns/uts")
        for pid in self.processes(node):
            os.kill(pid, signal.SIGKILL)
        self.nodes[node].wait()

    def vanish(self, node: str) -> None:
        """Kill all of a node at once, and tell Slurm that it is down."""
        self.kill(node)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=vanished")

    def close(self) -> None:
        """Stop the daemons, and whatever still runs on a node."""
        for node, daemon in self.nodes.items():
            if daemon.poll() is None:
                self.kill(node)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(30)
