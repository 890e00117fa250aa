"""How many runs a GPU's memory holds as one stack."""

from collections.abc import Sequence

import torch

from hyla_repro.experiment import TrainingRun
from hyla_repro.training.stack import CHUNK, Stack


def stack_size(runs: Sequence[TrainingRun], device: str) -> int:
    """Return how many of these runs fit on a GPU together, from the memory that steps of one and of two take."""
    if len(runs) < 3:
        return len(runs)
    peaks = []
    for count in (1, 2):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        stack = Stack(runs[:count], device)
        stack.warm_up()
        stack.evaluate(CHUNK)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
        del stack
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return min(len(runs), fitting(free, peaks[0], peaks[1]))


def fitting(free: int, one: int, two: int) -> int:
    """Return how many runs fit into `free` bytes, a fifth of them kept back, if one takes `one` and two take `two`."""
    each = max(two - one, 1)
    return max(1, int((0.8 * free - (one - each)) // each))
