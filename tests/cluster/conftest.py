"""What tests of submissions share: one submission, and programs that answer as Slurm's would."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def make_submission():
    """Build a submission of two workers; keywords change it."""
    from hyla_repro.cluster.submission import Submission

    def make(**changes: object) -> Submission:
        facts = {
            "figure": "fig2b", "preset": "smoke", "where": ("method=hyla",), "again": True, "workers": 2,
            "seconds": 14_400.0, "margin": 300.0, "gpus": 0, "cpus": 1, "partition": None, "options": (),
            "cluster": "slurm",
        }  # fmt: skip
        return Submission(**facts | changes)

    return make


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Put a program on PATH, before others, that is these lines of shell; what it is called with is in its log."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def put(name: str, lines: str) -> Path:
        log = folder / f"{name}.log"
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {log}\n{lines}\n')
        (folder / name).chmod(0o755)
        return log

    return put
