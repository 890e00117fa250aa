"""Committed results: tidy tables and weights in data/, written from the ledger and checked before use."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hyla_repro import codes, codes_sraven
from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import RUNS, DataFolder, table_name
from hyla_repro.ledger.runs import CURVE, MODEL, Ledger
from hyla_repro.presets import FIGURES, PRESETS, experiments
from hyla_repro.training.plan import Timed

CURVES, PAPER = "curves.csv", "paper_values.csv"
DECODING, EMBEDDING = "decoding.csv", "embedding.csv"
RULE_DECODING, MEAN_CODES, CODE_PLANE = "sraven_rule_decoding.csv", "sraven_mean_codes.csv", "sraven_code_plane.csv"
# Larger weights stay in the ledger, and in what `hyla-repro export` packs.
_LARGEST_MODEL = 2_000_000


class Store(DataFolder):
    """The tables and weights in the folder of committed results, and what the ledger adds to them.

    Args:
        folder: `data` in the repository if None.
        committed_only: leave out finished runs that are in the ledger but were not collected yet.
    """

    def __init__(self, folder: Path | None = None, committed_only: bool = False) -> None:
        super().__init__(folder)
        self.committed_only = committed_only

    def table(self, name: str) -> pd.DataFrame:
        """Return a committed table; an empty one if nothing was collected for it yet."""
        if name not in self.manifest():
            return pd.DataFrame({"id": pd.Series(dtype=str)})
        return pd.read_csv(io.BytesIO(self.read(name)), dtype={"id": str})

    def _in_ledger(self, run: Experiment) -> bool:
        """Whether the run was trained here; its own result then comes before a committed one."""
        return not self.committed_only and Ledger().state(run) == "done"

    def _model_differs(self, run: Experiment) -> bool:
        digest = self.manifest().get(_model_name(run))
        return self._in_ledger(run) and Ledger().result(run)["files"][MODEL] != digest

    # --- what chapters ask for -------------------------------------------------------------------

    def runs(self, wanted: Iterable[Experiment]) -> pd.DataFrame:
        """Return one row per finished run: settings, scores and provenance; from the ledger, else committed."""
        committed, rows = self.committed_runs(), []
        for run in wanted:
            if self._in_ledger(run):
                rows.append(_row(run, Ledger()))
            elif run.id in committed:
                rows.append(committed[run.id])
        return pd.DataFrame(rows)

    def committed_runs(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the committed runs of every task by their identity."""
        tables = [self.table(name) for name in self.manifest() if name.endswith(RUNS)]
        return {row["id"]: row for table in tables for row in table.to_dict("records")}

    def curves(self, wanted: Iterable[Experiment]) -> pd.DataFrame:
        """Return the training curves of finished runs: id, variant, seed, step, train_loss, scores."""
        parts = []
        for run in wanted:
            committed, in_ledger = self.table(table_name(CURVES, run.task_name)), self._in_ledger(run)
            part = _curve(run, Ledger()) if in_ledger else committed[committed["id"] == run.id]
            parts.append(part.assign(variant=run.method, seed=run.seed))
        return pd.concat(parts, ignore_index=True)

    def model(self, run: Experiment) -> bytes | None:
        """Return the safetensors bytes of a run's weights, or None where neither data nor ledger has them."""
        if self._in_ledger(run):
            return Ledger().read(run, MODEL)
        return self.read(_model_name(run)) if _model_name(run) in self.manifest() else None

    def analysis(self, name: str, wanted: Iterable[Experiment]) -> pd.DataFrame:
        """Return the rows of a table that is computed from weights, such as DECODING, making missing ones."""
        committed, parts = self.table(name), []
        for run in wanted:
            part = committed[committed["id"] == run.id]
            weights = self.model(run) if part.empty or self._model_differs(run) else None
            if weights is not None:
                part = _ANALYSES[name].make([run], [weights])
            parts.append(part.assign(variant=run.method, seed=run.seed))
        # A part without rows has no types, and would turn whole numbers into floating-point ones.
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


class _Analysis(NamedTuple):
    """A table computed from weights: the figure whose runs it is of, and how the rows of runs of one shape are made."""

    figure: str
    make: Callable[..., pd.DataFrame]


_ANALYSES = {
    DECODING: _Analysis("fig2b", codes.decoding_table),
    EMBEDDING: _Analysis("fig2d", codes.embedding_table),
    RULE_DECODING: _Analysis("fig5f", codes_sraven.rule_decoding_table),
    MEAN_CODES: _Analysis("fig5e", codes_sraven.mean_code_table),
    CODE_PLANE: _Analysis("fig5a", codes_sraven.code_plane_table),
}


def _model_name(run: Experiment) -> str:
    return f"models/{run.id}.safetensors"


def _row(run: Experiment, ledger: Ledger) -> dict:
    result = ledger.result(run)
    facts = {"train_loss": result["train_loss"], "minutes": result["minutes"], **result["provenance"]}
    return {**run.row(), **result["scores"], **facts}


def _curve(run: Experiment, ledger: Ledger) -> pd.DataFrame:
    curve = pd.read_csv(io.BytesIO(ledger.read(run, CURVE)))
    curve.insert(0, "id", run.id)
    return curve


def _append(table: pd.DataFrame, parts: list[pd.DataFrame]) -> pd.DataFrame:
    # An empty table has no types, and would turn whole numbers into floating-point ones.
    return pd.concat([part for part in (table, *parts) if len(part)], ignore_index=True)


def timed_runs(store: Store | None = None) -> list[Timed]:
    """Return how long the finished runs took that are committed or in the ledger."""
    store, ledger = store or Store(), Ledger()
    runs = {run.id: run for preset in PRESETS for run in experiments("all", preset)}
    rows = {identity: row for identity, row in store.committed_runs().items() if identity in runs}
    states = ledger.states(runs.values())
    rows |= {identity: _row(run, ledger) for identity, run in runs.items() if states[identity] == "done"}
    return [Timed(runs[identity], row["device"], row["minutes"]) for identity, row in rows.items()]


def require(table: pd.DataFrame, figure: str, preset: str) -> pd.DataFrame:
    """Return the table if it has rows.

    Raises: DataError saying how to train what is missing.
    """
    if table.empty:
        raise DataError(f"no finished runs of {figure} at preset {preset!r}: run `hyla-repro run {figure} --preset "
                        f"{preset}`, or set train=True in the chapter")  # fmt: skip
    return table


def cost(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what runs cost: how many, on which device, with how many threads, hours in all, and when."""
    groups = runs.groupby(["device", "instruction_set", "threads", "torch", "steps"], as_index=False)
    table = groups.agg(runs=("minutes", "size"), hours=("minutes", "sum"), since=("date", "min"), until=("date", "max"))
    return table.assign(hours=(table["hours"] / 60).round(1)).astype({"threads": int, "steps": int})


def _by_shape(models: Iterable[tuple[Experiment, bytes]], device: str) -> list[list[tuple[Experiment, bytes]]]:
    """Group runs whose codes are collected together: on a CPU, which is no faster with stacks, each alone."""
    groups: dict[str, list[tuple[Experiment, bytes]]] = {}
    for run, weights in models:
        groups.setdefault(run.id if device == "cpu" else run.shape, []).append((run, weights))
    return list(groups.values())


def collect(store: Store | None = None, presets: Iterable[str] = ("laptop", "paper"), device: str = "cpu") -> str:
    """Add every finished run of these presets to the committed tables, and return a line that says what was added.

    Rows already committed stay as they are, so results of several machines add up.

    Args:
        device: where the latent codes of trained models are computed; on a GPU, runs of one shape as one stack.
    """
    store, ledger = store or Store(), Ledger()
    store.recover()
    known = {run.id: (preset, run) for preset in PRESETS if preset in presets for run in experiments("all", preset)}
    committed = store.committed_runs()
    done = [run for _, run in known.values() if run.id not in committed and ledger.state(run) == "done"]
    if not done:
        return f"nothing new: {len(committed)} runs are committed"
    order = {identity: position for position, identity in enumerate(known)}
    files = {}
    for task in dict.fromkeys(run.task_name for run in done):
        runs = [run for run in done if run.task_name == task]
        for table, parts in ((RUNS, [pd.DataFrame([_row(run, ledger) for run in runs])]),
                             (CURVES, [_curve(run, ledger) for run in runs])):  # fmt: skip
            name = table_name(table, task)
            whole = _append(store.table(name), parts)
            whole = whole.sort_values("id", key=lambda ids: ids.map(order), kind="stable")
            files[name] = whole.to_csv(index=False).encode()
    for name, (figure, make) in _ANALYSES.items():
        shown = {run.id for preset in presets for run in FIGURES[figure](preset)}
        models = [(run, ledger.read(run, MODEL)) for run in done if run.id in shown]
        if models:
            parts = [make(*zip(*stack, strict=True), device) for stack in _by_shape(models, device)]
            files[name] = _append(store.table(name), parts).to_csv(index=False).encode()
            files |= {_model_name(run): weights for run, weights in models if len(weights) <= _LARGEST_MODEL}
    store.write(files)
    return f"added {len(done)} runs; {len(committed) + len(done)} of {len(known)} are committed"
