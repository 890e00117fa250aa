"""Where runs go on that were stopped before: from checkpoints that all of a stack have."""

from collections.abc import Sequence

from tqdm import tqdm

from hyla_repro.experiment import TrainingRun
from hyla_repro.ledger.runs import Ledger
from hyla_repro.training.stack import facts_of


def resumable(runs: Sequence[TrainingRun], ledger: Ledger) -> list[tuple[list[TrainingRun], list[bytes]]]:
    """Split runs into parts that can go on together: from a step that all of a part have a sound checkpoint of.

    A process that dies between two files of one checkpoint leaves some runs one checkpoint behind the others. All
    keep the one before, so they go on from there together, as if it had died earlier.
    """
    found = []
    for run in runs:
        checkpoints, damaged = ledger.load_checkpoints(run)
        for path in damaged:
            tqdm.write(f"checkpoint {path} is damaged; using the one before it")
        found.append({facts_of(content)["step"]: content for content in checkpoints})
    common = set.intersection(*map(set, found))
    steps = [max(common or contents, default=0) for contents in found]
    return [
        ([run for run, at in zip(runs, steps, strict=True) if at == step],
         [contents[step] for contents, at in zip(found, steps, strict=True) if at == step > 0])
        for step in dict.fromkeys(steps)
    ]  # fmt: skip
