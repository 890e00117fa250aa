"""Committed results: tidy tables and weights in data/, written from the ledger and checked before use."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from hyla_repro.errors import DataError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import RUNS, DataFolder, model_name, step_name, table_name
from hyla_repro.ledger.runs import ALONG, CURVE, MODEL, Ledger
from hyla_repro.results.analysis import Analysis, Computed
from hyla_repro.training.plan import Timed

CURVES, PAPER = "curves.csv", "paper_values.csv"


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
        digest = self.manifest().get(model_name(run))
        return self._in_ledger(run) and Ledger().result(run)["files"][MODEL] != digest

    # --- what chapters ask for -------------------------------------------------------------------

    def runs(self, wanted: Iterable[Experiment]) -> pd.DataFrame:
        """Return one row per finished run: settings, scores and provenance; from the ledger, else committed."""
        committed, rows = self.committed_runs(), []
        for run in wanted:
            if self._in_ledger(run):
                rows.append(row(run, Ledger()))
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
            part = curve(run, Ledger()) if in_ledger else committed[committed["id"] == run.id]
            parts.append(part.assign(variant=run.method, seed=run.seed))
        return pd.concat(parts, ignore_index=True)

    def model(self, run: Experiment) -> bytes | None:
        """Return the safetensors bytes of a run's weights, or None where neither data nor ledger has them."""
        if self._in_ledger(run):
            return Ledger().read(run, MODEL)
        return self.read(model_name(run)) if model_name(run) in self.manifest() else None

    def weights(self, run: Experiment, analysis: Analysis) -> Any | None:
        """Return what an analysis is made of for a run, or None where neither data nor ledger has it."""
        last = self.model(run)
        return last if last is None or not analysis.along else self.along(run) | {run.steps: last}

    def along(self, run: Experiment) -> dict[int, bytes]:
        """Return a run's weights at each step before its last that data or ledger has them of, as safetensors bytes."""
        if self._in_ledger(run):
            return _by_step(Ledger().read(run, ALONG)) if ALONG in Ledger().result(run)["files"] else {}
        return {step: self.read(step_name(run, step)) for step in self.steps_of(run)}

    def analysis(self, analysis: Analysis, wanted: Iterable[Experiment]) -> pd.DataFrame:
        """Return the rows of a table that is computed from weights, with variant and seed, making missing ones."""
        committed = self.table(analysis.table)
        parts = [committed[:0].assign(variant="", seed=0)]
        for run in wanted:
            part = committed[committed["id"] == run.id]
            weights = self.weights(run, analysis) if part.empty or self._model_differs(run) else None
            if weights is not None:
                part = analysis.make([run], [weights])
            parts.append(part.assign(variant=run.method, seed=run.seed))
        # A part without rows has no types, and would turn whole numbers into floating-point ones.
        return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)

    def computed(self, computed: Computed) -> pd.DataFrame:
        """Return the rows of a table that is computed of settings, of those parts that are there."""
        table = self.table(computed.table)
        return table[table["id"].isin(computed.wanted())].reset_index(drop=True)


def _by_step(content: bytes) -> dict[int, bytes]:
    """Return the weights at each step of what a run kept along training."""
    import safetensors.torch

    parts: dict[int, dict[str, Any]] = {}
    for name, tensor in safetensors.torch.load(content).items():
        step, _, weight = name.partition("/")
        parts.setdefault(int(step), {})[weight] = tensor
    return {step: safetensors.torch.save(parts[step]) for step in sorted(parts)}


def row(run: Experiment, ledger: Ledger) -> dict:
    result = ledger.result(run)
    facts = {"train_loss": result["train_loss"], "minutes": result["minutes"], **result["provenance"]}
    return {**run.row(), **result["scores"], **facts}


def curve(run: Experiment, ledger: Ledger) -> pd.DataFrame:
    curve = pd.read_csv(io.BytesIO(ledger.read(run, CURVE)))
    curve.insert(0, "id", run.id)
    return curve


def timed_runs(known: Iterable[Experiment], store: Store | None = None) -> list[Timed]:
    """Return how long those of these runs took that are committed or finished in the ledger."""
    store, ledger = store or Store(), Ledger()
    runs = {run.id: run for run in known}
    rows = {identity: facts for identity, facts in store.committed_runs().items() if identity in runs}
    states = ledger.states(runs.values())
    rows |= {identity: row(run, ledger) for identity, run in runs.items() if states[identity] == "done"}
    return [
        Timed(runs[identity], facts["device"], facts["minutes"], facts["instruction_set"] == "cuda")
        for identity, facts in rows.items()
    ]


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
