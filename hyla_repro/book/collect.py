"""Finished runs enter data/: their rows, curves, weights and what is computed of these, all of it or nothing."""

from collections.abc import Iterable, Sequence
from itertools import product
from math import isclose
from typing import Any

import pandas as pd

from hyla_repro.experiment import Experiment
from hyla_repro.files import sha256
from hyla_repro.ledger.data_folder import RUNS, model_name, step_name, table_name
from hyla_repro.ledger.runs import Ledger
from hyla_repro.results.analysis import Analysis
from hyla_repro.results.store import CURVES, Store, curve, row
from hyla_repro.studies import chapters, experiments, kept, kept_steps
from hyla_repro.studies.study import once

# Larger weights stay in the ledger, and in what `hyla-repro export` packs.
_LARGEST_MODEL = 2_000_000
# Weights along training are many files: those of one model of each method are kept.
_SEED_ALONG = 0


def _by_shape(models: Iterable[tuple[Experiment, Any]], device: str) -> list[list[tuple[Experiment, Any]]]:
    """Group runs whose codes are collected together: on a CPU, which is no faster with stacks, each alone."""
    groups: dict[str, list[tuple[Experiment, Any]]] = {}
    for run, weights in models:
        groups.setdefault(run.id if device == "cpu" else run.shape, []).append((run, weights))
    return list(groups.values())


def collect(store: Store | None = None, presets: Sequence[str] = ("laptop", "paper"), device: str = "cpu") -> str:
    """Add every finished run of these presets to the committed tables, and return a line that says what was added.

    Rows already committed stay as they are, so results of several machines add up. A run that is committed, but whose
    codes are shown only now, gets its tables if its weights are committed or the ledger still has that very training.

    Args:
        device: where the latent codes of trained models are computed; on a GPU, runs of one shape as one stack.
    """
    store, ledger = store or Store(), Ledger()
    store.recover()
    known = once(run for preset in presets for run in experiments("all", preset))
    committed = store.committed_runs()
    finished = [run for run in known if ledger.state(run) == "done"]
    done = [run for run in finished if run.id not in committed]
    # A run that was trained again, on another machine or by older code, has other weights than its row tells of.
    same = [run for run in finished if run.id in committed
            and isclose(ledger.result(run)["train_loss"], committed[run.id]["train_loss"], rel_tol=1e-12)]  # fmt: skip
    here = [*done, *same]
    held = [run for run in known if run.id in committed and run not in same and model_name(run) in store.manifest()]
    files = _tables(done, presets, store, ledger) | _analyses(here, held, presets, store, device)
    # An analysis may have no rows for some of its runs.
    digests = store.manifest()
    files = {name: content for name, content in files.items() if sha256(content) != digests.get(name)}
    if not files:
        return f"nothing new: {len(committed)} runs are committed"
    store.write(files)
    if not done:
        return f"added {', '.join(sorted(files))}, of runs that were committed"
    return f"added {len(done)} runs; {len(committed) + len(done)} of {len(known)} are committed"


def _tables(done: Sequence[Experiment], presets: Sequence[str], store: Store, ledger: Ledger) -> dict[str, bytes]:
    """Return the tables of runs and curves with these added, by file; a run's preset is the first that has it."""
    files, preset_of = {}, {run.id: preset for preset in reversed(presets) for run in experiments("all", preset)}
    for task in dict.fromkeys(run.task_name for run in done):
        runs = [run for run in done if run.task_name == task]
        for table, parts in ((RUNS, [pd.DataFrame([row(run, ledger) | {"preset": preset_of[run.id]} for run in runs])]),
                             (CURVES, [curve(run, ledger) for run in runs])):  # fmt: skip
            name = table_name(table, task)
            files[name] = _append(store.table(name), parts)
    return files


def _analyses(
    here: Sequence[Experiment], held: Sequence[Experiment], presets: Sequence[str], store: Store, device: str
) -> dict[str, bytes]:
    """Return the tables computed from weights with the runs that they lack, and weights that are new, by file.

    Args:
        here: runs whose weights are the ledger's.
        held: runs whose weights are committed, whatever the ledger has of them.
    """
    source = dict.fromkeys((run.id for run in here), store)
    source |= dict.fromkeys((run.id for run in held), Store(store.folder, committed_only=True))
    files: dict[str, bytes] = {}
    keep = {run.id for preset in presets for run in kept(preset)}
    files |= _new_weights((run for run in here if run.id in keep), store) | _new_weights_along(here, store)
    for analysis, identities in shown_by(presets).items():
        table = store.table(analysis.table)
        wanted = identities - set(table["id"])
        shown = [run for run in (*here, *held) if run.id in wanted]
        if shown:
            models = [(run, source[run.id].weights(run, analysis)) for run in shown]
            parts = [analysis.make(*zip(*stack, strict=True), device) for stack in _by_shape(models, device)]
            files[analysis.table] = _append(table, parts)
            files |= _new_weights((run for run in here if run.id in wanted), store)
    return files


def _new_weights(runs: Iterable[Experiment], store: Store) -> dict[str, bytes]:
    """Return the weights of runs that are not committed yet, but for large ones."""
    held = store.manifest()
    models = {model_name(run): store.model(run) for run in runs if model_name(run) not in held}
    return {name: weights for name, weights in models.items() if weights and len(weights) <= _LARGEST_MODEL}


def _new_weights_along(runs: Iterable[Experiment], store: Store) -> dict[str, bytes]:
    """Return the weights along training of runs that keep them, of the first seed, that are not committed yet."""
    held = store.manifest()
    files: dict[str, bytes] = {}
    for run in runs:
        steps = sorted(kept_steps(run)) if run.seed == _SEED_ALONG else []
        if any(step_name(run, step) not in held for step in steps):
            files |= {step_name(run, step): weights for step, weights in store.along(run).items()}
    return {name: weights for name, weights in files.items() if name not in held and len(weights) <= _LARGEST_MODEL}


def shown_by(presets: Iterable[str]) -> dict[Analysis, set[str]]:
    """Return, for every table that is computed from weights, the identities of the runs that chapters show of it."""
    shown: dict[Analysis, set[str]] = {}
    for chapter, preset in product(chapters().values(), presets):
        for analysis in chapter.analyses:
            shown.setdefault(analysis, set()).update(run.id for run in experiments(chapter.figure, preset))
    return shown


def _append(table: pd.DataFrame, parts: list[pd.DataFrame]) -> bytes:
    # An empty table has no types, and would turn whole numbers into floating-point ones.
    whole = pd.concat([part for part in (table, *parts) if len(part)], ignore_index=True)
    return whole.to_csv(index=False).encode()
