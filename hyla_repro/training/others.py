"""Work that is shared with others: who goes on with what they leave behind, and when there is nothing more to do."""

import math
import time
from collections.abc import Callable, Sequence

from hyla_repro.errors import DivergedError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.locks import BEAT_SECONDS, LEASE_SECONDS
from hyla_repro.ledger.runs import ENDED, Ledger

# After this long nobody holds a run whose holder died.
_UNTIL_DEAD = LEASE_SECONDS + BEAT_SECONDS


def train_with_others(
    train: Callable[[float | None], None], runs: Sequence[Experiment], ledger: Ledger, seconds: float | None
) -> None:
    """Train until nothing is left but what others train, who are alive for certain.

    Args:
        train: trains what nobody else does, within seconds if not None, and passes over the rest.
        seconds: for all of it.

    Raises: DivergedError as `train` does, but not before all else is done.
    """
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    before: dict[str, str] = {}
    diverged: DivergedError | None = None
    waited = False
    while True:
        try:
            train(None if seconds is None else max(deadline - time.monotonic(), 0.0))
        except DivergedError as error:
            diverged = error
        left = {identity: state for identity, state in ledger.states(runs).items() if state not in ENDED}
        taken = all(state == "training" for state in left.values())
        if not left or time.monotonic() >= deadline or (taken and waited):
            break
        if taken or left == before:
            time.sleep(max(min(_UNTIL_DEAD, deadline - time.monotonic()), 0.0))
        waited, before = taken, left
    if diverged and taken:
        raise diverged
