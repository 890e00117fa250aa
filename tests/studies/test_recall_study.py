"""The chapter on recall: its runs, rules that can say both, and a picture with and without runs."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hyla_repro.results.effects import CONTRADICTED, NOT_TESTED, REPRODUCED, UNDECIDED
from hyla_repro.results.summary import Results
from hyla_repro.studies import experiments
from hyla_repro.studies.recall import claims, figures, runs
from hyla_repro.studies.study import PRESETS

Accuracy = Callable[[str, int], float]


class Rows(Results):
    """Results whose runs have given accuracies in percent, by method and number of pairs, a little apart by seed."""

    def __init__(self, accuracy: Accuracy, preset: str = "laptop", drop: int = 0, noise: float = 0.1) -> None:
        draw, self.preset = np.random.default_rng(0), preset
        wanted = runs.all_runs(preset)
        rows = [{**run.row(), "test": accuracy(run.method, run.task["n_pairs"]) / 100 + noise / 100 * draw.uniform()}
                for run in wanted[: len(wanted) - drop]]  # fmt: skip
        self.table = pd.DataFrame(rows)

    def best(self, figure: str, task: str) -> pd.DataFrame:
        assert (figure, task) == ("mqar", "mqar")
        return self.table


def answers(accuracy: Accuracy, **options: float) -> dict[str, str]:
    return {claim.id: claim.decide(Rows(accuracy, **options)).answer for claim in claims.claims(None)}


def test_every_preset_has_every_method_at_every_number_of_pairs() -> None:
    for preset in PRESETS:
        found = experiments("mqar", preset)
        size = runs.SIZES[preset]
        assert len(found) == len(runs.METHODS) * len(size.pairs) * len(runs.SEEDS[preset]) * len(size.rates)
        assert len({run.id for run in found}) == len(found)
        assert {run.task["n_pairs"] for run in found} == set(size.pairs)
        assert all(run.model.causal for run in found)
        assert all(run.model.absolute is (run.method == "aaren") for run in found)
    assert len(experiments("mqar", "laptop")) <= 36


def expected(method: str, n_pairs: int) -> float:
    """Recall as the claims have it."""
    most = max(runs.SIZES["laptop"].pairs)
    return {"softmax": 99.8, "aaren": 120 / n_pairs, "hyla": 95 - n_pairs, "linear": 90 - 30 * n_pairs / most}[method]


def test_the_rules_say_what_they_are_made_for() -> None:
    assert set(answers(expected).values()) == {REPRODUCED}


@pytest.mark.parametrize(
    ("claim", "accuracy", "answer"),
    [
        ("recall-softmax", lambda method, n: 98.0, CONTRADICTED),
        ("recall-softmax", lambda method, n: 99.5 if n < 6 else 97.0, CONTRADICTED),
        ("recall-linear", lambda method, n: {"softmax": 99.5}.get(method, 80.0 + 2 * n), CONTRADICTED),
        ("recall-hyla", lambda method, n: {"hyla": 50.0}.get(method, 60.0), CONTRADICTED),
        ("recall-hyla-softmax", lambda method, n: 99.5, UNDECIDED),
        ("recall-aaren", lambda method, n: 99.5, CONTRADICTED),
        ("recall-aaren", lambda method, n: 6.0, CONTRADICTED),
    ],
)
def test_the_rules_can_say_no(claim: str, accuracy: Accuracy, answer: str) -> None:
    assert answers(accuracy, noise=0.4)[claim] == answer


def test_nothing_is_decided_without_all_runs() -> None:
    assert set(answers(expected, drop=1).values()) == {NOT_TESTED}
    assert set(answers(expected, preset="smoke").values()) == {NOT_TESTED}
    empty = Results("laptop", lambda figure, preset: [])
    assert {claim.decide(empty).answer for claim in claims.claims(None)} == {NOT_TESTED}


def test_the_picture_has_a_line_for_every_method_and_says_when_there_is_nothing() -> None:
    figure = figures.mqar(Rows(expected).table)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["softmax attention", "linear attention", "HYLA", "Aaren", "one of the values shown"]
    part = figures.mqar(Rows(expected, drop=30).table)
    empty = figures.mqar(pd.DataFrame())
    assert "no runs yet" in empty.axes[0].texts[0].get_text()
    for drawn in (figure, part, empty):
        plt.close(drawn)
