"""The tables of the page *Use it in your model* are those of the committed measurements."""

from pathlib import Path

import pandas as pd
import pytest

from hyla_repro.paths import ROOT

PAGE = Path(ROOT) / "book" / "use-it.md"
MEASURED = Path(ROOT) / "data" / "measurements"
FORMS = {"plain": "all pairs at once", "chunked": "`chunk=256`", "torch": "torch's own"}


def rows(first: str, columns: list[str], cells: dict[str, list[str]]) -> str:
    lines = [[first, *columns], ["---"] * (len(columns) + 1), *([name, *row] for name, row in cells.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sizes(table: pd.DataFrame) -> str:
    part = table[table["kind"] == "size"]
    mean = part.pivot_table(index="method", columns="tokens", values="std", sort=False)
    return rows("", [f"{n:.0f}" for n in mean], {name: [f"{x:.2g}" for x in row] for name, *row in mean.itertuples()})


def losses(table: pd.DataFrame) -> str:
    cells: dict[str, list[str]] = {}
    for (method, _), group in table[table["kind"] == "training"].groupby(["method", "rate"], sort=False):
        loss = group["loss"]
        cells.setdefault(method, []).append(f"{loss.mean():.2f} ({loss.min():.2f} to {loss.max():.2f})")
    return rows("", ["3e-4", "1e-3", "3e-3"], cells)


def lengths(table: pd.DataFrame) -> str:
    part = table[table["form"].isin(FORMS) & table["chunk"].isin([0, 256])]
    cells: dict[str, list[str]] = {}
    columns = list(part["tokens"].unique())
    for (variant, form), group in part.groupby(["variant", "form"]):
        at = group.set_index("tokens")
        cells[f"{'HYLA' if variant == 'hyla' else variant}, {FORMS[form]}"] = [
            f"{at.loc[n, 'cpu_s']:.2g} s, {at.loc[n, 'peak_mib'] / 1024:.2f} GiB" if n in at.index else "not tried"
            for n in columns
        ]
    return rows("tokens", [str(n) for n in columns], dict(sorted(cells.items())))


@pytest.mark.parametrize(("make", "name"), [(sizes, "key_reduction"), (losses, "key_reduction"), (lengths, "chunked")])
def test_tables_are_those_of_the_measurements(make, name: str) -> None:
    assert make(pd.read_csv(MEASURED / f"{name}.csv")) in PAGE.read_text()
