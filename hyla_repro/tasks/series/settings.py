"""The settings of time-series classification, checked and without torch or the data."""

from dataclasses import dataclass
from typing import NamedTuple

from hyla_repro.errors import choose, whole_number


class DataSet(NamedTuple):
    """What is known of a data set before it is read.

    Args:
        file: its name in the archive.
        length: of the longest series, in both splits.
        n_channels: numbers of each step.
        n_classes: classes of the series.
        n_train: series for training, by the archive's own split.
        n_test: series for the test.
    """

    file: str
    length: int
    n_channels: int
    n_classes: int
    n_train: int
    n_test: int


# Those of the multivariate archive that a package on PyPI brings along (aeon 1.6.0).
#: What `data_set` may be.
DATA_SETS = {
    "japanese_vowels": DataSet("JapaneseVowels", 29, 12, 9, 270, 370),
    "basic_motions": DataSet("BasicMotions", 100, 6, 4, 40, 40),
}


@dataclass(frozen=True)
class SeriesSettings:
    """The class of a series of vectors, such as who says a vowel, by the mean read-out of its steps.

    Args:
        data_set: one of DATA_SETS; the archive says which series are for training and which for the test.
        seed: draws the series of every batch.

    Raises:
        ValueError: unknown data set, or a seed that is out of range.

    Source: UEA multivariate time series classification archive (Bagnall et al., 2018, arXiv 1811.00075).
    """

    data_set: str = "japanese_vowels"
    seed: int = 0

    version = 1
    metric = "accuracy"
    names_model_size = False
    stackable = ()
    evaluation_splits = ("test",)
    selected_by = "test"
    lower_is_better = False
    scale = 100.0

    def __post_init__(self) -> None:
        choose("data set", self.data_set, DATA_SETS)
        whole_number("seed", self.seed, 0, "it is one word of the random numbers' key", 2**32 - 1)

    @property
    def facts(self) -> DataSet:
        """What is known of the data set."""
        return DATA_SETS[self.data_set]

    @property
    def short_name(self) -> str:
        return self.data_set

    @property
    def summary(self) -> str:
        return self.facts.file

    @property
    def n_tokens(self) -> int:
        return self.facts.length

    @property
    def n_read(self) -> int:
        return self.facts.length

    @property
    def model_sizes(self) -> dict[str, int]:
        return {"n_positions": self.n_tokens, "n_inputs": self.facts.n_channels, "n_outputs": self.facts.n_classes}
