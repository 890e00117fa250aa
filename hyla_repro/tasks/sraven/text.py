"""A SRAVEN problem as plain text: to look at, and to ask a language model."""

import re
from string import ascii_lowercase, digits
from typing import NamedTuple

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


class Prompt(NamedTuple):
    """What a language model is asked, and the answer in the form that it is asked for."""

    text: str
    answer: str


_RULES = (
    "it is the same in all panels of the row", "it grows by 1 from panel to panel", "it grows by 2 from panel to panel",
    "it falls by 1 from panel to panel", "it falls by 2 from panel to panel",
    "the last panel has the sum of those before", "the last panel has the first one minus those after it",
    "{grid} distinct numbers, the same in all rows, come in some order in each row",
)  # fmt: skip


def prompt(task: SRaven, batch: SRavenBatch, index: int = 0, explain: bool = True) -> Prompt:
    """Return one problem of a batch as a prompt: the task in words, the panels that are shown, and the question.

    Args:
        explain: also list the rules, which a model that was not trained on them cannot know.

    Raises: ValueError for an index outside the batch.
    """
    index = whole_number("index", index, 0, "it is a problem of the batch", len(batch.targets) - 1)
    panels = [[_panel(panel) for panel in row] for row in task.panels(batch)[index].tolist()]
    k, grid, answer = task.n_features, task.grid_size, panels[-1][-1]
    panels[-1][-1] = "?"
    lines = [
        f"A puzzle has {grid} rows of {grid} panels. A panel shows {k} numbers from 0 to {task.n_values - 1}, one for "
        f"each of {k} features. In which order a panel shows its features may change from column to column, but not "
        "from row to row."
    ]
    if explain:
        lines += [f"From left to right, each feature follows one of these rules, the same in every row, with numbers "
                  f"taken modulo {task.n_values}:",
                  *(f"- {rule.format(grid=grid)}" for rule in _RULES)]  # fmt: skip
    lines += ["", *("  ".join(row) for row in panels), "",
              f"Which numbers belong in place of the question mark? End your reply with the {k} numbers in their "
              "order, in parentheses."]  # fmt: skip
    return Prompt("\n".join(lines), answer)


def parse_answer(task: SRaven, text: str) -> tuple[int, ...] | None:
    """Return the panel that a reply ends with: the last run of as many numbers in a line as a panel has.

    Returns: the numbers in their order; None, which no answer equals, where there is no such run or one of its numbers
        is no symbol of the task.
    """
    runs = [re.findall(r"\d+", run) for run in re.findall(r"\d+(?:[, \t]+\d+)*", text)]
    panels = [tuple(map(int, run)) for run in runs if len(run) == task.n_features]
    return panels[-1] if panels and max(panels[-1]) < task.n_values else None


def _panel(symbols: list[int]) -> str:
    return f"({' '.join(map(str, symbols))})"
