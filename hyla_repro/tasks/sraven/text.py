"""A SRAVEN problem as plain text."""

from string import ascii_lowercase, digits

from hyla_repro.errors import whole_number
from hyla_repro.tasks.sraven.rules import RULES
from hyla_repro.tasks.sraven.task import SRaven, SRavenBatch

_GLYPHS = digits + ascii_lowercase


def render(task: SRaven, batch: SRavenBatch, index: int = 0, solution: bool = True) -> str:
    """Return one problem of a batch as text: the grid, a tuple of symbols for each panel.

    Args:
        solution: also print the answer and, for each feature, its rule, its position in every column (from 1) and
            its rows.

    Raises: ValueError for an index outside the batch.
    """
    index = whole_number("index", index, 0, "it is a problem of the batch", len(batch.targets) - 1)
    grid = task.panels(batch)[index].tolist()
    width = 1 if task.n_values <= len(_GLYPHS) else len(str(task.n_values - 1))

    def glyphs(symbols: list[int]) -> str:
        return " ".join(_GLYPHS[s] if width == 1 else f"{s:>{width}}" for s in symbols)

    panels = [[f"({glyphs(panel)})" for panel in row] for row in grid]
    answer, panels[-1][-1] = panels[-1][-1], f"({' '.join(['?'.rjust(width)] * task.n_features)})"
    lines = ["   ".join(row) for row in panels]
    if solution:
        lines += ["", f"answer {answer}"]
        names, columns = list(RULES), batch.permutations[index].tolist()
        for feature, rule in enumerate(batch.rules[index].tolist()):
            places = [order.index(feature) for order in columns]
            rows = " | ".join(glyphs([row[c][place] for c, place in enumerate(places)]) for row in grid)
            lines.append(f"{names[rule]:<16}  at {' '.join(str(place + 1) for place in places)}:  {rows}")
    return "\n".join(lines)
