"""Time every chapter: on the committed results, and at `smoke` with training, where it has runs.

python benchmarks/chapters.py --out chapters.csv
python benchmarks/chapters.py drop mqar --out chapters.csv
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
from conclude import conclude

from hyla_repro.book.notebook import execute
from hyla_repro.errors import choose
from hyla_repro.studies import pages


def seconds(figure: str, parameters: dict[str, object]) -> float:
    """Return how long a chapter takes, the start of its kernel included, with no run in the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HYLA_REPRO_RUNS"] = folder
        start = time.perf_counter()
        execute(figure, parameters, Path(folder) / "out.ipynb")
        return time.perf_counter() - start


def main(
    figures: Annotated[list[str] | None, typer.Argument(help="chapters to time; all if none is named")] = None,
    out: Path | None = None,
) -> None:
    """Print one line per chapter."""
    known = pages()
    chosen = [choose("figure", figure, known) for figure in figures or known]
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    try:
        for figure in chosen:
            smoke = None if known[figure].runs is None else seconds(figure, {"preset": "smoke", "train": True})
            rows.append({"figure": figure, "committed_s": seconds(figure, {}), "smoke_s": smoke})
    finally:  # A chapter that fails leaves the others' times.
        conclude(pd.DataFrame(rows), "cpu", out)


if __name__ == "__main__":
    typer.run(main)
