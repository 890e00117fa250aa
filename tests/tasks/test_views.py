"""Tasks as streams and tables: the same problems for everybody, whoever reads them and with how many workers."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hyla_repro.errors import MissingPackageError
from hyla_repro.tasks import MQAR, TASKS, FuzzyLogic, SRaven, as_dataset, as_iterable, views
from hyla_repro.tasks.digests import DIGESTS
from hyla_repro.tasks.evaluation import digest
from hyla_repro.tasks.series.task import _standardised
from hyla_repro.tasks.sraven import evaluation_set
from hyla_repro.tasks.task import TaskSettings


def same(one: tuple, other: tuple) -> bool:
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Worker:
    """What torch tells a process that reads for a DataLoader."""

    def __init__(self, id: int, num_workers: int) -> None:
        self.id, self.num_workers = id, num_workers


# --- streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_stream_has_the_batches_that_runs_are_trained_on(name: str, write_archive: Callable[..., object]) -> None:
    write_archive()
    task = TASKS[name](seed=3)
    stream = list(as_iterable(name, "train", 3, batch_size=2, steps=3))
    assert all(same(batch, task.batch("train", step, 2)) for step, batch in enumerate(stream))
    assert len(stream) == 3


@given(n=st.integers(1, 7), start=st.integers(0, 50), steps=st.integers(0, 12))
def test_workers_have_every_step_once_and_in_turn(n: int, start: int, steps: int) -> None:
    def read(worker: Worker | None) -> list:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(views, "get_worker_info", lambda: worker)
            return [batch.inputs for batch in as_iterable(FuzzyLogic(), batch_size=1, start=start, steps=steps)]

    whole, parts = read(None), [read(Worker(i, n)) for i in range(n)]
    assert len(whole) == steps == sum(map(len, parts))
    assert all(torch.equal(parts[step % n][step // n], batch) for step, batch in enumerate(whole))


def test_real_workers_agree_with_one_process() -> None:
    stream = as_iterable(SRaven(n_features=2), "heldout", batch_size=2, start=5, steps=5)
    alone = list(stream)
    assert len(stream) == len(alone) == 5
    together = list(DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    assert len(together) == 5
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


def test_a_stream_goes_on_where_it_was_left() -> None:
    whole = list(as_iterable("fuzzy_logic", batch_size=2, steps=6))
    rest = list(as_iterable("fuzzy_logic", batch_size=2, start=4, steps=2))
    assert all(same(one, other) for one, other in zip(whole[4:], rest, strict=True))
    endless = iter(as_iterable("fuzzy_logic", batch_size=2))
    assert all(same(next(endless), batch) for batch in whole)
    with pytest.raises(TypeError, match="without `steps` has no length"):
        len(as_iterable("fuzzy_logic"))


def test_a_seed_takes_the_place_of_the_tasks_own() -> None:
    one, two, three = (next(iter(as_iterable(SRaven(seed=7), "train", seed, batch_size=2))) for seed in (None, 7, 8))
    assert same(one, two)
    assert not same(one, three)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "sravn"}, "unknown task 'sravn': did you mean 'sraven'"),
        ({"split": "training"}, "unknown split 'training'"),
        ({"batch_size": 0}, "batch_size=0 is out of range: use 1 or more"),
        ({"start": -1}, "start=-1 is out of range"),
        ({"steps": -1}, "steps=-1 is out of range: use 0 or more"),
        ({"seed": -1}, "seed=-1 is out of range"),
    ],
)
def test_streams_that_make_no_sense_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_iterable(**{"task": "sraven", **arguments})


# --- tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_a_table_has_a_typed_column_for_every_part(name: str, write_archive: Callable[..., object]) -> None:
    pytest.importorskip("datasets")
    write_archive()
    task = TASKS[name]()
    table, batch = as_dataset(task, "test", 3).with_format("torch"), task.batch("test", 0, 3)
    assert table.column_names == list(batch._fields)
    for field, part in batch._asdict().items():
        assert torch.equal(table[:][field], part)
        assert table[:][field].dtype == part.dtype


def test_a_table_says_what_it_was_drawn_with_and_has_the_problems_that_models_are_scored_on() -> None:
    datasets = pytest.importorskip("datasets")
    table = as_dataset(SRaven(n_features=2), "heldout", 501)
    assert table.features["targets"] == datasets.Sequence(datasets.Value("int64"), length=2)
    assert table.features["inputs"].length == 18
    assert "n_features=2" in table.info.description
    assert "split heldout" in table.info.description
    assert str(table.info.version) == f"{SRaven.version}.0.0"
    scored = evaluation_set(SRaven(n_features=2), problems=501).problems["heldout"]
    assert torch.equal(torch.tensor(table["targets"][:]), scored.targets)


def test_tables_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, message in (
        (("sravn", "test", 1), "unknown task"), (("sraven", "tset", 1), "unknown split"),
        (("sraven", "test", 0), "n=0 is out of range: use 1 or more"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            as_dataset(*arguments)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackageError, match=r"hyla-repro\[datasets\]"):
        as_dataset("sraven", "test", 1)


# --- versions and digests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_sets_of_this_version_are_the_published_ones(name: str) -> None:
    """Fails when a task draws other problems: then raise its version, and add its digests beside the old ones."""
    if name == "series" and find_spec("aeon") is None:
        pytest.skip("the series need hyla-repro[series]")
    _standardised.cache_clear()  # another test may have read made-up series
    task = TASKS[name]()
    assert isinstance(task, TaskSettings)
    assert max(DIGESTS[name]) == task.version, "the version has no digests"
    assert {split: digest(task, split, 1000) for split in task.evaluation_splits} == DIGESTS[name][task.version]


def test_every_task_has_digests_of_all_its_versions() -> None:
    assert set(DIGESTS) == set(TASKS)
    for name, versions in DIGESTS.items():
        assert sorted(versions) == list(range(1, 1 + TASKS.settings(name).version))


def test_a_digest_changes_with_anything_but_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    task = FuzzyLogic(n_examples=3)
    before = digest(task, "test", 5)
    assert before != digest(task, "test", 6)
    assert before != digest(task, "heldout", 5)
    assert before != digest(FuzzyLogic(n_examples=3, seed=1), "test", 5)
    draw = FuzzyLogic.draw
    for change, same in ((1e-9, True), (1e-3, False)):

        def changed(*arguments: object, by: float = change) -> object:
            batch = draw(*arguments)
            return batch._replace(targets=(batch.targets.double() + by).float())

        monkeypatch.setattr(FuzzyLogic, "draw", changed)
        assert (digest(task, "test", 5) == before) is same
    with pytest.raises(ValueError, match="unknown split 'tset'"):
        digest(MQAR(), "tset")
