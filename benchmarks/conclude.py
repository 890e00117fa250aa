"""What every benchmark does at its end: print its table, and write it with the machine, versions and date."""

from pathlib import Path

import pandas as pd

from hyla_repro.training.provenance import provenance

MACHINE = ("device", "instruction_set", "threads", "torch")
FACTS = (*MACHINE, "commit", "date")


def conclude(table: pd.DataFrame, device: str, out: Path | None) -> None:
    """Print a table of measurements and, if `out` is given, write it as CSV with what it was measured on."""
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if out is not None:
        facts = provenance(device, compiled=False)
        table.assign(**{name: facts[name] for name in FACTS}).to_csv(out, index=False)
