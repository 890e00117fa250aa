"""Tables that need no trained run: made part by part, resumed, and of today's settings only."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from hyla_repro import studies
from hyla_repro.book.compute import compute
from hyla_repro.book.shown import Shown
from hyla_repro.errors import DataError
from hyla_repro.results.analysis import Computed, identity
from hyla_repro.results.store import Store
from hyla_repro.studies.study import Chapter, Study


@dataclass(frozen=True)
class Power:
    base: int
    exponent: int


class Toy:
    """A table of powers that counts how often a part was made, and may fail at one."""

    def __init__(self) -> None:
        self.wanted, self.made, self.fails_at = [Power(2, 1), Power(2, 2), Power(3, 2)], 0, 0

    def make(self, part: Power) -> pd.DataFrame:
        self.made += 1
        if self.made == self.fails_at:
            raise KeyboardInterrupt
        return pd.DataFrame({"value": [part.base**part.exponent]})


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    computed = Computed("powers.csv", lambda: toy.wanted, toy.make)
    monkeypatch.setattr(
        studies, "STUDIES", [Study("toy", "Toy", (Chapter("powers", tables=(computed,)), Chapter("bare")))]
    )
    return toy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.write({"paper_values.csv": b"figure\n"})
    return store


def table(toy: Toy) -> Computed:
    return studies.chapters()["powers"].tables[0]


def test_every_part_is_made_once(toy: Toy, store: Store) -> None:
    assert compute("powers", store) == "powers.csv: 3 of 3 parts added"
    found = store.computed(table(toy))
    assert found.to_dict("list") == {
        "id": [identity(part) for part in toy.wanted], "base": [2, 2, 3], "exponent": [1, 2, 2], "value": [2, 4, 9],
    }  # fmt: skip
    before = store.read("powers.csv")
    assert compute("powers", store) == "powers.csv: 0 of 3 parts added"
    assert (toy.made, store.read("powers.csv")) == (3, before)
    compute("powers", store, again=True)
    assert (toy.made, store.read("powers.csv")) == (6, before)


def test_what_was_made_before_a_stop_is_kept(toy: Toy, store: Store) -> None:
    toy.fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        compute("powers", store)
    assert store.computed(table(toy))["value"].tolist() == [2, 4]
    assert compute("powers", store) == "powers.csv: 1 of 3 parts added"
    assert store.computed(table(toy))["value"].tolist() == [2, 4, 9]


def test_rows_of_other_settings_count_for_nothing(toy: Toy, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compute("powers", store)
    toy.wanted[1] = replace(toy.wanted[1], exponent=5)
    assert store.computed(table(toy))["value"].tolist() == [2, 9]
    shown = Shown("powers", "laptop")
    monkeypatch.setattr(shown.results, "store", store)
    with pytest.raises(DataError, match=r"lacks 1 of 3 parts.*hyla-repro compute powers"):
        shown.computed(table(toy))
    assert compute("powers", store) == "powers.csv: 1 of 3 parts added"
    assert store.table("powers.csv")["value"].tolist() == [2, 32, 9]
    assert shown.computed(table(toy))["value"].tolist() == [2, 32, 9]


def test_identities_tell_settings_apart() -> None:
    parts = [Power(2, 3), Power(3, 2), Power(2, 2)]
    assert len({identity(part) for part in parts}) == 3
    assert identity(Power(2, 3)) == identity(parts[0])


def test_a_figure_without_such_tables_says_so(toy: Toy, store: Store) -> None:
    with pytest.raises(ValueError, match=r"bare has no tables.*hyla-repro collect"):
        compute("bare", store)
    with pytest.raises(ValueError, match="unknown figure 'power': did you mean 'powers'"):
        compute("power", store)
