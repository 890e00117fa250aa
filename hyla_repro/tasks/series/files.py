"""Reading the archive's text files where a package has put them; it is located, and never imported."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from hyla_repro.errors import DataError, MissingPackageError
from hyla_repro.tasks.series.settings import DATA_SETS


class Split(NamedTuple):
    """The series of one split, filled up with zeros to one length.

    Args:
        padding: True where a series has ended.
        classes: from 0, in the order of the file's header.
    """

    values: Float[np.ndarray, "n t c"]
    padding: Bool[np.ndarray, "n t"]
    classes: Int[np.ndarray, " n"]


def folder() -> Path:
    """Return where the archive's files are: in the package `aeon`, which need not be importable for that.

    Raises: MissingPackageError without it.
    """
    spec = find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "no time series here: they come in the package aeon; `pip install 'hyla-repro[series]'` brings it, and "
            "`pip install --no-deps aeon` is enough"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def read(data_set: str, split: str) -> Split:
    """Return the series of `train` or `test`, as the file has them.

    Raises: MissingPackageError without the files, DataError for a file that holds other than what is known of it.
    """
    facts = DATA_SETS[data_set]
    path = folder() / facts.file / f"{facts.file}_{split.upper()}.ts"
    if not path.is_file():
        raise MissingPackageError(f"{path} is missing: another release of aeon? aeon 1.6.0 has it")
    header, _, body = path.read_text().partition("@data")
    (labels,) = (line.split()[2:] for line in header.splitlines() if line.startswith("@classLabel"))
    lines = [line.rpartition(":") for line in body.split()]
    # A line has channel after channel, then the class.
    series = [np.array([channel.split(",") for channel in text.split(":")], float).T for text, _, _ in lines]
    expected = (facts.n_train if split == "train" else facts.n_test, {facts.n_channels}, facts.n_classes)
    found = (len(series), {values.shape[1] for values in series}, len(labels))
    if found != expected or max(map(len, series)) > facts.length:
        raise DataError(
            f"{path} has series, channels and classes {found} of up to {max(map(len, series))} steps, not {expected} "
            f"of up to {facts.length}: use aeon 1.6.0"
        )
    values = np.zeros((len(series), facts.length, facts.n_channels))
    padding = np.ones(values.shape[:2], dtype=bool)
    for row, own in enumerate(series):
        values[row, : len(own)], padding[row, : len(own)] = own, False
    return Split(values, padding, np.array([labels.index(label) for _, _, label in lines]))
