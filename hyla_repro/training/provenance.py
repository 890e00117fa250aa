"""What a result was made with: machine class, versions, commit, date."""

import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hyla_repro.paths import commit
from hyla_repro.version import __version__


def compiler_available(device: str) -> bool:
    """Return whether torch.compile can build for this device: Triton on a GPU, a C++ compiler on a CPU."""
    if device != "cpu":
        return torch.cuda.is_available()
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def device_name(device: str) -> str:
    """Return the marketing name of the processor that a device string stands for."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def provenance(device: str, compiled: bool) -> dict[str, Any]:
    """Return the facts recorded with every result."""
    return {
        "device": device_name(device),
        "instruction_set": torch.backends.cpu.get_cpu_capability() if device == "cpu" else "cuda",
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hyla_repro": __version__,
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
