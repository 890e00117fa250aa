"""Host libraries in the environment of the tests: `pip install --group hosts`, then `pytest -m hosts`."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "book" / "use-it.md"


def _declare_operators_of_torchvision() -> None:
    """PyPI has torchvision for CUDA builds of torch only; beside a CPU build its operators would not be declared."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


library = torch.library.Library("torchvision", "FRAGMENT")
_declare_operators_of_torchvision()


def source_of(name: str) -> str:
    """Return a block of the page *Use it in your model* by the name in its first line."""
    found = re.findall(rf"```python\n(# {name}\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(found) == 1, f"{PAGE} has {len(found)} blocks named {name}"
    return found[0]


@pytest.fixture
def block() -> Callable[[str], dict[str, Any]]:
    """Run a block of the page, and return what it defines."""

    def run(name: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(compile(source_of(name), f"{PAGE.name}: {name}", "exec"), names)
        return names

    return run


@pytest.fixture
def alone() -> Callable[[str, str], str]:
    """Run a block and a check in a process without the tests' checks of annotations, and return what it prints last.

    Those checks take the symbols in place of sizes, while torch exports a program, for a wrong type.
    """

    def run(name: str, check: str) -> str:
        command = [sys.executable, "-W", "ignore", "-c", f"{source_of(name)}\n{check}"]
        done = subprocess.run(command, cwd=PAGE.parents[1], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip().splitlines()[-1]

    return run
