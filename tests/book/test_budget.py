"""The budget of the preset `paper`: schedules by hand, and hours that follow from the plan."""

import pytest

from hyla_repro.book import budget
from hyla_repro.results.store import Store
from hyla_repro.studies import experiments


@pytest.mark.parametrize(
    ("hours", "devices", "until"),
    [
        ([3.0, 2.0, 2.0], 1, 7),
        ([3.0, 2.0, 2.0], 2, 4),
        ([3.0, 2.0, 2.0], 64, 3),
        ([], 8, 0),
        ([1.0, 1.0, 1.0, 1.0, 4.0], 2, 4),
    ],
)
def test_the_last_run_ends_when_it_does_by_hand(hours: list[float], devices: int, until: float) -> None:
    assert budget.hours_until_done(hours, devices) == until


def test_every_run_is_counted_once_on_each_kind_of_device() -> None:
    table = budget.table(Store(committed_only=True))
    total = len(experiments("all", "paper"))
    reported = table[table["hours rest on"].str.startswith("as reported")]
    assert (reported["runs"].astype(int) + int(table["runs"].iloc[2]) == total).all()
    least, most = (float(row.replace(" ", "")) for row in reported["GPU or core hours"])
    # 20 to 200 minutes a run of SRAVEN and 2 to 3 one of fuzzy logic.
    assert 1.5 < most / least < 10
    hours = table[[f"hours on {count}" for count in budget.DEVICES]].map(lambda text: float(text.replace(" ", "")))
    assert (hours["hours on 1"] >= hours["hours on 8"]).all()
    assert (hours["hours on 8"] >= hours["hours on 64"]).all()
