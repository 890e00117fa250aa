"""Tables as MyST and GitHub read them."""

import pandas as pd


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table of cells that are text already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def frame(content: pd.DataFrame) -> str:
    """Return the columns of a DataFrame, without its index."""
    return table(list(content.columns), content.astype(str).to_numpy().tolist())
