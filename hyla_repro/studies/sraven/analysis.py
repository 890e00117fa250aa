"""How many SRAVEN problems there are, how many have more than one answer, and what held-out tasks ask (Figure 3)."""

from collections.abc import Iterable
from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd

from hyla_repro.results.summary import percent_interval
from hyla_repro.tasks.sraven import SRaven, best_guess, evaluation_set, hypotheses, is_ambiguous, is_wholly_ambiguous
from hyla_repro.tasks.sraven.rules import fillings
from hyla_repro.tasks.sraven.settings import SRAVEN_RULES


def sraven_counts(task: SRaven) -> pd.Series:
    """Return how many tasks, problems and hypotheses there are."""
    sizes = [fillings(name, task.n_values, task.grid_size) for name in SRAVEN_RULES]
    orders = factorial(task.n_features) ** task.grid_size
    counts = {
        "tasks": task.n_multisets, "trained on": task.n_multisets - task.n_heldout, "held out": task.n_heldout,
        "ways to draw a problem of the smallest task": min(sizes) ** task.n_features * orders,
        "ways to draw a problem of the largest task": max(sizes) ** task.n_features * orders,
        "hypotheses per problem": hypotheses(task),
    }  # fmt: skip
    return pd.Series({name: f"{n:,}" if n < 1e9 else f"{n:.1e}" for name, n in counts.items()}, name="number")


def ambiguity(task: SRaven, problems: int) -> pd.DataFrame:
    """Return, per split, which share of problems is ambiguous, with 95 % intervals, and the best possible accuracy."""
    rows = {}
    for split, batch in evaluation_set(task, problems=problems).problems.items():
        several, wholly = is_ambiguous(task, batch.inputs), is_wholly_ambiguous(task, batch)
        _, probability = best_guess(task, batch.inputs)
        rows[split] = {
            "another answer, every symbol different": percent_interval(int(wholly.sum()), problems),
            "more than one answer": percent_interval(int(several.sum()), problems),
            "best possible accuracy": f"{100 * probability.mean().item():.1f} %",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def best_possible(tasks: Iterable[SRaven], problems: int = 2000) -> float:
    """Return the accuracy in percent of the ideal solver on held-out problems, as mean over tasks.

    It knows how problems are drawn, and not which combinations of rules are held out.

    Args:
        problems: of each task.
    """
    sets = ((task, evaluation_set(task, ["heldout"], problems).problems["heldout"]) for task in tasks)
    return 100 * float(np.mean([best_guess(task, batch.inputs)[1].mean().item() for task, batch in sets]))


def pairs_shown(sizes: Iterable[int] = (2, 3, 4), seeds: Iterable[int] = (0, 1, 2)) -> pd.DataFrame:
    """Return, by number of features and seed, what training tasks show of the rules and pairs of held-out ones.

    Every pair of rules within a held-out task counts; a pair is shown if a training task has both, among others.
    """
    rows = {(f"K = {size}", seed): _pairs(SRaven(n_features=size, seed=seed)) for size in sizes for seed in seeds}
    return pd.DataFrame(rows).T.rename_axis(["features", "seed"])


def _pairs(task: SRaven) -> dict[str, str]:
    train, heldout = (task.multisets[pool].tolist() for pool in ("train", "heldout"))
    shown = {pair for rules in train for pair in combinations(rules, 2)}
    asked = [pair in shown for rules in heldout for pair in combinations(rules, 2)]
    counts = [sum(rule in rules for rules in train) for rule in range(len(SRAVEN_RULES))]
    return {
        "training tasks per rule": f"{min(counts)} to {max(counts)}", "held-out tasks": f"{len(heldout)}",
        "pairs of rules in them": f"{len(asked)}", "shown in training": f"{sum(asked)}",
    }  # fmt: skip
