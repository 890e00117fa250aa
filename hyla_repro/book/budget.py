"""What all runs of the preset `paper` need on 1, 8 and 64 devices: runs, hours and euros, on paper."""

from collections.abc import Sequence
from heapq import heapify, heapreplace

import pandas as pd

from hyla_repro.experiment import Experiment
from hyla_repro.results.store import Store, timed_runs
from hyla_repro.studies import PRESETS, experiments, study_of
from hyla_repro.studies.study import once
from hyla_repro.training.plan import minutes_per_run, total_flop

# Assumptions, none of them measured: prices of renting, and what a GPU sustains in float32 on runs that fill it.
EUROS_PER_GPU_HOUR, EUROS_PER_CORE_HOUR = 2.0, 0.03
ASSUMED_TFLOPS = 20.0
CORES_PER_NODE = 64
DEVICES = (1, 8, 64)


def hours_until_done(hours: Sequence[float], devices: int) -> float:
    """Return when the last run ends if the longest start first, each on one device as soon as one is free."""
    ends = [0.0] * devices
    heapify(ends)
    for each in sorted(hours, reverse=True):
        heapreplace(ends, ends[0] + each)
    return max(ends)


def table(store: Store) -> pd.DataFrame:
    """Return, for the runs that papers report times of, the others, and each CPU: the budget of preset `paper`."""
    runs = experiments("all", "paper")
    reported = [run for run in runs if study_of(run.task_name).reported_minutes]
    others = [run for run in runs if not study_of(run.task_name).reported_minutes]
    rows = [
        _row(reported, [_reported(run, end) for run in reported], f"as reported, at {word}", 1, EUROS_PER_GPU_HOUR)
        for end, word in enumerate(("least", "most"))
    ]
    rate = ASSUMED_TFLOPS * 1e12 * 3600
    rows.append(_row(others, [total_flop(run) / rate for run in others], f"assumed: {ASSUMED_TFLOPS:g} TFLOP/s", 1,
                     EUROS_PER_GPU_HOUR))  # fmt: skip
    timed = timed_runs(once(run for preset in PRESETS for run in experiments("all", preset)), store)
    for device in sorted({entry.device for entry in timed if not entry.gpu}):
        estimate = minutes_per_run(timed, device)
        for part in (reported, others):
            hours = [(estimate(run) or 0.0) / 60 for run in part]
            rows.append(_row(part, hours, f"≈ {device}, its timed runs", CORES_PER_NODE, EUROS_PER_CORE_HOUR))
    return pd.DataFrame(rows)


def _reported(run: Experiment, end: int) -> float:
    minutes = study_of(run.task_name).reported_minutes
    assert minutes is not None
    return minutes[end] / 60


def _row(runs: Sequence[Experiment], hours: list[float], basis: str, per: int, price: float) -> dict[str, str]:
    device = "GPU" if per == 1 else f"node of {per} cores"
    return {
        "tasks": ", ".join(dict.fromkeys(run.task_name for run in runs)), "runs": str(len(runs)), "on a": device,
        "hours rest on": basis, "GPU or core hours": _spaced(sum(hours)), "euros": _spaced(sum(hours) * price),
        **{f"hours on {count}": _spaced(hours_until_done(hours, count * per)) for count in DEVICES},
    }  # fmt: skip


def _spaced(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")
