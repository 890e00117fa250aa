"""For all tests: one thread, reproducible hypothesis examples, tiny experiments, an empty ledger, faults counted."""

import csv
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, settings

# The library is imported inside the fixtures only: a type-checking import hook must come first where one is used.
if TYPE_CHECKING:
    from hyla_repro.experiment import Experiment
    from hyla_repro.ledger.runs import Ledger

torch.set_num_threads(1)
settings.register_profile(
    "hyla_repro", max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
settings.load_profile("hyla_repro")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("HYLA_REPRO_FAULTS") and config.getoption("numprocesses", None):
        raise pytest.UsageError("HYLA_REPRO_FAULTS counts faults in one process: call `python -m pytest` without -n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _no_open_figures() -> Iterator[None]:
    """Close what a test drew: pyplot keeps every figure, and warns of too many of them wherever the 21st is drawn."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture
def golden() -> Path:
    """The folder of reference arrays."""
    return Path(__file__).parent / "golden"


@pytest.fixture
def make_run() -> "Callable[..., Experiment]":
    """Build a fuzzy-logic run that trains in a fraction of a second; keywords change fields, validated again."""
    from hyla_repro.experiment import Experiment
    from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic

    def make(variant: str = "hyla", seed: int = 0, **changes: Any) -> Experiment:
        run = fuzzy_logic("smoke", variant, seed)
        sizes = {"d_model": 11, "n_heads": 3, "qk_dim": 6, "v_dim": 6, "d_ff": 13, "n_positions": 7, "n_inputs": 4}
        task = {"n_variables": 3, "n_terms": 2, "n_examples": 7, "heldout_fraction": 0.5}
        small = {
            "task": task, "model": run.model.model_copy(update=sizes),
            "steps": 37, "batch_size": 5, "warmup_steps": 3, "evaluation_sequences": 23,
        }  # fmt: skip
        return Experiment.model_validate(run.model_copy(update=small | changes).model_dump())

    return make


@pytest.fixture
def run(make_run: "Callable[..., Experiment]") -> "Experiment":
    """One tiny HYLA run."""
    return make_run()


@pytest.fixture
def ledger(tmp_path: Path) -> "Ledger":
    """An empty ledger of its own."""
    from hyla_repro.ledger.runs import Ledger

    return Ledger(tmp_path / "runs")


@pytest.fixture
def write_archive(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> "Callable[..., Path]":
    """Put files of made-up series, whose values tell row, channel and step, where a package has the archive's."""
    from hyla_repro.tasks.series import DATA_SETS, files

    def write(facts: Any = DATA_SETS["japanese_vowels"], n_classes: int = 9, n_channels: int = 12) -> Path:
        archive = tmp_path_factory.mktemp("archive")
        (archive / facts.file).mkdir()
        labels = " ".join(str(1 + k) for k in range(n_classes))
        for split, count in (("TRAIN", facts.n_train), ("TEST", facts.n_test)):
            lines = [f"# made up\n@classLabel true {labels}\n@data"]
            for row in range(count):
                steps = range(7 + row % (facts.length - 6))
                channels = [",".join(f"{row + 100 * c + 0.5 * t}" for t in steps) for c in range(n_channels)]
                lines.append(":".join([*channels, str(1 + row % n_classes)]))
            (archive / facts.file / f"{facts.file}_{split}.ts").write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(files, "folder", lambda: archive)
        return archive

    return write


Count = Callable[[bool], None]
_tried: Counter[tuple[str, str]] = Counter()
_survived: Counter[tuple[str, str]] = Counter()


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Iterator[Count]:
    """Note one try of a fault and whether it was survived; all must have been at the end of a test.

    With HYLA_REPRO_FAULTS=FILE.csv, every fault is written with how often it was tried and survived, under the number
    of its promise or as one of Slurm's. `benchmarks/record.py FILE.csv` then puts the table into data/, from where the
    book takes it.
    """
    kept: list[bool] = []
    yield kept.append
    kind, words = re.fullmatch(r"test_(promise_\d\d|slurm)_(\w+)", request.node.originalname).groups()
    fault = kind.removeprefix("promise_"), words.replace("_", " ")
    _tried[fault] += len(kept)
    _survived[fault] += sum(kept)
    assert kept, "this promise was not tried"
    assert all(kept), f"kept {sum(kept)} of {len(kept)} times"


def pytest_sessionfinish() -> None:
    path = os.environ.get("HYLA_REPRO_FAULTS")
    if not path or not _tried:
        return
    from hyla_repro.training.provenance import provenance

    facts = provenance("cpu", compiled=False)
    facts = {name: facts[name] for name in ("device", "instruction_set", "threads", "torch", "commit", "date")}
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["promise", "fault", "tried", "survived", *facts])
        for (number, fault), tried in sorted(_tried.items()):
            writer.writerow([number.lstrip("0"), fault, tried, _survived[number, fault], *facts.values()])
