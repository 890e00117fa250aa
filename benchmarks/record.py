"""Put measurements into data/measurements, from where the book's chapter on cost takes them.

A table replaces what the same machine gave under the same name before; tables of other machines stay.

    python benchmarks/record.py step_time.csv value_network.csv
"""

import io
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from conclude import MACHINE

from hyla_repro.book.costs import MEASUREMENTS
from hyla_repro.ledger.data_folder import DataFolder

# Tables that other pages than the chapter on cost show.
KNOWN = (*MEASUREMENTS, "key_reduction", "scaled_head", "streaming")


def merge(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the new rows after those of other machines."""
    if set(before.columns) != set(new.columns):
        return new  # the benchmark was changed, so its old numbers mean something else
    measured = set(new[list(MACHINE)].astype(str).itertuples(index=False, name=None))
    others = [row not in measured for row in before[list(MACHINE)].astype(str).itertuples(index=False, name=None)]
    return pd.concat([before[others], new[before.columns]], ignore_index=True)


def main(files: Annotated[list[Path], typer.Argument(help="tables that a benchmark wrote with --out")]) -> None:
    """Check all files, then write them."""
    folder, tables = DataFolder(), {}
    for file in files:
        if file.stem not in KNOWN:
            raise typer.BadParameter(f"{file} is none of {', '.join(KNOWN)}: name it after its benchmark")
        table, name = pd.read_csv(file), f"measurements/{file.stem}.csv"
        missing = {*MACHINE, "commit", "date"} - set(table.columns)
        if missing:
            raise typer.BadParameter(f"{file} lacks {sorted(missing)}: write it with a benchmark's --out")
        if name in folder.manifest():
            table = merge(pd.read_csv(io.BytesIO(folder.read(name))), table)
        tables[name] = table.to_csv(index=False).encode()
    folder.write(tables)
    print("\n".join(f"recorded {folder.folder / name}" for name in tables))


if __name__ == "__main__":
    typer.run(main)
