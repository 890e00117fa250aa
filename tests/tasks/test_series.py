"""Time series: files read as they are, padding that counts nowhere, and faults that say what to do."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyla_repro.errors import DataError, MissingPackageError
from hyla_repro.tasks.series import DATA_SETS, Series, files, read, task

WriteArchive = Callable[..., Path]


@pytest.fixture
def archive(write_archive: WriteArchive) -> Iterator[Path]:
    """An archive of made-up series in place of the package's."""
    task._standardised.cache_clear()
    yield write_archive()
    task._standardised.cache_clear()


def test_files_are_read_channel_by_channel(archive: Path) -> None:
    series = read("japanese_vowels", "train")
    assert series.values.shape == (270, 29, 12)
    assert series.values[3, 4, 2] == 3 + 200 + 2, "row 3, channel 2, step 4"
    assert (~series.padding).sum(1)[:3].tolist() == [7, 8, 9]
    assert not series.values[series.padding].any()
    assert series.classes[:10].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_the_real_archive_has_what_is_known_of_it() -> None:
    if find_spec("aeon") is None:
        pytest.skip("the series need hyla-repro[series]")
    for name, facts in DATA_SETS.items():
        train, test = (read(name, split) for split in ("train", "test"))
        assert max((~s.padding).sum(1).max() for s in (train, test)) == facts.length
        assert (~train.padding).sum(1).min() >= 7
        assert set(train.classes) == set(test.classes) == set(range(facts.n_classes))


@pytest.mark.parametrize(
    ("faults", "message"),
    [({"n_channels": 11}, r"has series, channels and classes \(270, \{11\}, 9\).*use aeon 1.6.0"),
     ({"n_classes": 8}, r"\(270, \{12\}, 8\).*not \(270, \{12\}, 9\)"),
     ({"facts": DATA_SETS["japanese_vowels"]._replace(n_train=5)}, r"\(5, \{12\}, 9\)"),
     ({"facts": DATA_SETS["japanese_vowels"]._replace(length=30)}, r"of up to 30 steps, .* of up to 29")],
)  # fmt: skip
def test_files_that_hold_something_else_are_refused(
    write_archive: WriteArchive, faults: dict[str, Any], message: str
) -> None:
    write_archive(**faults)
    with pytest.raises(DataError, match=message):
        read("japanese_vowels", "train")


def test_without_the_package_an_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"hyla-repro\[series\]"):
        read("japanese_vowels", "train")
    monkeypatch.setattr(files, "folder", lambda: tmp_path)
    with pytest.raises(MissingPackageError, match=r"JapaneseVowels_TRAIN.ts is missing: another release of aeon"):
        read("japanese_vowels", "train")


def test_channels_are_standardised_by_the_training_series_alone(archive: Path) -> None:
    tables = Series().tables("train")
    steps = tables["values"][~tables["padding"]]
    torch.testing.assert_close(steps.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(steps.std(0, correction=0), torch.ones(12), atol=1e-4, rtol=0)
    test = Series().tables("test")
    assert test["values"][~test["padding"]].mean(0).abs().min() > 0.1, "the test has another mean, and keeps it"
    assert not test["values"][test["padding"]].any()


def test_the_test_split_is_read_from_its_first_series_on(archive: Path) -> None:
    task = Series()
    whole = task.batch("test", 0, 370)
    assert torch.equal(whole.targets, task.tables("test")["classes"])
    assert torch.equal(task.batch("test", 0, 5).inputs, whole.inputs[:5])
    assert torch.equal(task.batch("test", 2, 5).inputs, whole.inputs[10:15])


def test_training_draws_every_series_and_other_ones_each_step(archive: Path) -> None:
    task = Series(seed=3)
    draws = torch.stack([task.batch("train", step, 32).inputs[:, 0, 0] for step in range(200)])
    assert len(draws.unique()) == len(task.tables("train")["values"][:, 0, 0].unique())
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], Series(seed=4).batch("train", 0, 32).inputs[:, 0, 0])


@given(st.integers(1, 29), st.floats(-1e30, 1e30))
def test_what_stands_in_padding_counts_nowhere(length: int, garbage: float) -> None:
    batch = task.SeriesBatch(torch.zeros(1, 29, 12), torch.tensor([4]), (torch.arange(29) >= length)[None])
    outputs = torch.randn(1, 29, 9, generator=torch.Generator().manual_seed(length))
    filled = torch.where(batch.padding[..., None], torch.tensor(garbage, dtype=torch.float32), outputs)
    torch.testing.assert_close(Series().logits(filled, batch), outputs[:, :length].mean(1))


def test_loss_and_score_are_those_of_the_mean_output() -> None:
    batch = task.SeriesBatch(torch.zeros(2, 29, 12), torch.tensor([1, 2]), torch.arange(29).expand(2, 29) >= 10)
    outputs = torch.zeros(2, 29, 9)
    outputs[:, :10, 1] = torch.tensor([3.0, 1.0])[:, None]
    outputs[:, 10:, 2] = 100.0
    assert Series().score(outputs, batch).tolist() == [1.0, 0.0]
    expected = torch.nn.functional.cross_entropy(outputs[:, 0], batch.targets)
    torch.testing.assert_close(Series().loss(outputs, batch), expected)
    with pytest.raises(ValueError, match=r"outputs has shape \(2, 28, 9\): this task needs \(2, 29, 9\)"):
        Series().loss(outputs[:, 1:], batch)


def test_unknown_data_sets_and_splits_are_refused(archive: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'basic_motion': did you mean 'basic_motions'"):
        Series("basic_motion")
    with pytest.raises(ValueError, match="unknown split 'heldout'"):
        Series().batch("heldout", 0, 1)
    assert np.isin(Series().batch("train", 0, 50).targets, range(9)).all()
