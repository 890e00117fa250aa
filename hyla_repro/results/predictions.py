"""What committed models say on every problem that they were scored on, as Parquet: for statistics of your own."""

import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyla_repro.errors import MissingPackageError
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import DataFolder, model_name
from hyla_repro.models.transformer import load_model
from hyla_repro.training.stack import CHUNK

if TYPE_CHECKING:
    import pyarrow

Columns = dict[str, np.ndarray]
# What a batch has besides labels of its problems.
_NO_LABELS = ("inputs", "targets", "padding")


@torch.no_grad()
def predictions(run: Experiment, weights: bytes, device: str = "cpu") -> Columns:
    """Return one row per problem of a run's evaluation, in the order of its splits and of the problems.

    Returns: by column, arrays with a row for each problem: `split`; `problem`, its number in the split from 0, as
        `hyla_repro.tasks.as_dataset` numbers them; `prediction`, the number or the likeliest symbols, in the shape of
        `target`; `score`, the task's own; and the labels of the task's batches, such as rules or terms.
    """
    task, model = run.build_task(), load_model(weights, run.model).to(device)
    parts: list[Columns] = []
    for split in task.evaluation_splits:
        tables = task.tables(split, device)
        for step, start in enumerate(range(0, run.evaluation_sequences, CHUNK)):
            batch = task.draw(split, tables, step, min(CHUNK, run.evaluation_sequences - start))
            outputs = model(batch.inputs, last=task.n_read, padding=getattr(batch, "padding", None))
            labels = {name: part for name, part in batch._asdict().items() if name not in _NO_LABELS}
            tensors = {"prediction": _said(task, outputs, batch), "target": batch.targets,
                       "score": task.score(outputs, batch), **labels}  # fmt: skip
            size = len(batch.targets)
            parts.append({"split": np.full(size, split), "problem": np.arange(start, start + size),
                          **{name: tensor.cpu().numpy() for name, tensor in tensors.items()}})  # fmt: skip
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _said(task: Any, outputs: torch.Tensor, batch: Any) -> torch.Tensor:
    if batch.targets.is_floating_point():
        return outputs.reshape(batch.targets.shape)
    # Time series are read out at their mean step.
    logits = task.logits(outputs, batch) if hasattr(task, "logits") else outputs
    return logits.argmax(-1)


def parquet(runs: Iterable[Experiment], folder: DataFolder, device: str = "cpu") -> bytes:
    """Return the predictions of runs of one task as a Parquet file, with columns for the run: id, method and seed.

    Whole numbers have the smallest type that holds them, and several numbers of a problem are a list. The file's
    metadata have the settings of the task and its version.

    Raises: MissingPackageError without pyarrow; DataError for weights that are missing or altered.
    """
    try:
        import pyarrow
    except ImportError as error:
        message = "Parquet needs the package pyarrow: `pip install 'hyla-repro[datasets]'`"
        raise MissingPackageError(message) from error
    tables = []
    for run in runs:
        columns = predictions(run, folder.read(model_name(run)), device)
        size = len(columns["problem"])
        facts = {"id": np.full(size, run.id), "method": np.full(size, run.method), "seed": np.full(size, run.seed)}
        tables.append({**facts, **columns})
        task = run.task_settings
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    table = pyarrow.table({name: _column(values) for name, values in joined.items()})
    return write(table.replace_schema_metadata({"task": task.summary, "task_version": str(task.version)}))


def write(table: "pyarrow.Table") -> bytes:
    """Return a table as a small Parquet file: floating-point numbers byte by byte, pages as large as they can be.

    Runs of one seed share their problems, which only a page that holds several of them can tell.
    """
    import pyarrow
    from pyarrow import parquet as files

    fractions = [field.name for field in table.schema if pyarrow.types.is_floating(field.type)]
    texts = [field.name for field in table.schema if pyarrow.types.is_dictionary(field.type)]
    written = io.BytesIO()
    files.write_table(
        table, written, compression="zstd", compression_level=19, use_dictionary=texts, data_page_size=1 << 26,
        max_rows_per_page=table.num_rows,
        column_encoding={"problem": "DELTA_BINARY_PACKED", **dict.fromkeys(fractions, "BYTE_STREAM_SPLIT")},
    )  # fmt: skip
    return written.getvalue()


def _column(values: np.ndarray) -> "pyarrow.Array":
    import pyarrow

    if values.dtype.kind == "U":
        return pyarrow.array(values.tolist()).dictionary_encode()
    if values.dtype.kind == "i":
        values = values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
    values = values.reshape(len(values)) if values.shape[1:] == (1,) else values
    array = pyarrow.array(values.reshape(-1))
    for length in reversed(values.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, length)
    return array


def with_weights(runs: Iterable[Experiment], folder: DataFolder) -> Mapping[str, list[Experiment]]:
    """Return those of the runs whose weights are committed, by task."""
    held, by_task = folder.manifest(), dict[str, list[Experiment]]()
    for run in runs:
        if model_name(run) in held:
            by_task.setdefault(run.task_name, []).append(run)
    return by_task
