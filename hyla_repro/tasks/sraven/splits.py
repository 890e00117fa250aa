"""Splits by the share of tasks that are trained on, down to a handful in which every rule still occurs."""

import warnings
from itertools import count
from typing import Any

from hyla_repro.errors import whole_number
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES, SRavenSettings
from hyla_repro.tasks.sraven.task import SRaven

# The shares of rule combinations that work outside this package trains on, such as the Abduction Transformer (ICLR
# 2026) on the first. Whether its K, F and permutations are the paper's is not known here.
TRAIN_FRACTIONS = (0.01, 0.1, 0.9)


def rule_groups(task: SRaven) -> list[list[str]]:
    """Return the rules in groups that training tasks connect: those of one task belong together, and so on.

    A split is connected if there is one group. A rule that no training task has is a group of its own.
    """
    groups = [{rule} for rule in range(len(SRAVEN_RULES))]
    for multiset in task.multisets["train"].tolist():
        touched = [group for group in groups if group.intersection(multiset)]
        groups = [group for group in groups if group not in touched] + [set().union(*touched)]
    return sorted([SRAVEN_RULES[rule] for rule in sorted(group)] for group in groups)


def connected_split(train_fraction: float, index: int = 0, **sizes: Any) -> SRaven:
    """Return a task trained on this share of the rule multisets, with a seed whose split is connected.

    Of the seeds 0, 1, 2, ... that have one, it takes the one with this index; the seed also draws the batches. Numbers
    of tasks are rounded in favour of training: 1 % of the 330 with four features are 4.

    Args:
        train_fraction: between 0 and 1, such as 0.01, 0.1 or 0.9.
        sizes: settings of `SRaven` besides `heldout_fraction` and `seed`.

    Raises: ValueError for settings that cannot be, or so few training tasks that no split of them is connected.
    """
    whole_number("index", index, 0, "it numbers the connected splits")
    if not isinstance(train_fraction, (int, float)) or not 0.0 < train_fraction < 1.0:
        raise ValueError(f"train_fraction={train_fraction!r} is not between 0 and 1: a split would be empty")
    # Without rounding, 0.9 would hold out less than 0.1.
    settings = {**sizes, "heldout_fraction": round(1 - train_fraction, 12)}
    found = SRavenSettings(**settings)
    n_train, k, rules = found.n_multisets - found.n_heldout, found.n_features, len(SRAVEN_RULES)
    # Every task joins at most k groups into one.
    least = -(-(rules - 1) // (k - 1)) if k > 1 else rules + 1
    if n_train < least:
        needed = (
            f"use {least / found.n_multisets:.2g} or more, or more features" if k > 1 else "use two features or more"
        )
        raise ValueError(f"train_fraction={train_fraction} of {found.n_multisets} rule multisets are {n_train}, which "
                         f"cannot connect {rules} rules by {k} at a time: {needed}")  # fmt: skip
    for seed in count():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connected = len(rule_groups(SRaven(**settings, seed=seed))) == 1
        index -= connected
        if index < 0:
            return SRaven(**settings, seed=seed)
    raise AssertionError("seeds do not end")
