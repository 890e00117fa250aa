"""Tables that need no trained run are computed part by part, and enter data/ as each part is done."""

from dataclasses import asdict

import pandas as pd

from hyla_repro.results.analysis import Computed
from hyla_repro.results.store import Store
from hyla_repro.studies import find_chapter


def compute(figure: str, store: Store | None = None, again: bool = False) -> str:
    """Compute what the tables of a figure lack, and return a line that says what was added.

    Stop it at any time and go on later. Rows of settings that are no longer asked for leave the table.

    Args:
        again: compute every part anew.

    Raises: ValueError for an unknown figure, or one without such tables.
    """
    store, tables = store or Store(), find_chapter(figure).tables
    if not tables:
        raise ValueError(
            f"{figure} has no tables that are computed without runs: `hyla-repro collect` makes those of runs"
        )
    store.recover()
    return "; ".join(_complete(computed, store, again) for computed in tables)


def _complete(computed: Computed, store: Store, again: bool) -> str:
    wanted, before = computed.wanted(), store.table(computed.table)
    known = {} if again else {key: rows for key, rows in before.groupby("id", sort=False) if key in wanted}
    missing = [key for key in wanted if key not in known]
    for key in missing:
        rows = computed.make(wanted[key])
        for place, (name, value) in enumerate({"id": key, **asdict(wanted[key])}.items()):
            rows.insert(place, name, value)
        known[key] = rows
        whole = pd.concat([known[key] for key in wanted if key in known], ignore_index=True)
        store.write({computed.table: whole.to_csv(index=False).encode()})
    return f"{computed.table}: {len(missing)} of {len(wanted)} parts added"
