"""One call that trains any module as our rows were trained, and shows it beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hyla_repro.errors import MissingPackageError, whole_number
from hyla_repro.experiment import TrainingRun
from hyla_repro.files import seal, write_atomically
from hyla_repro.ledger.runs import Ledger
from hyla_repro.results.methods import NAMES
from hyla_repro.studies.mixers.rows import CELLS, beside, cell, seeds_of
from hyla_repro.training.foreign import Entry, MakeModel, ModelSpec, describe_module
from hyla_repro.training.loop import train
from hyla_repro.training.plan import seconds_of
from hyla_repro.training.screening import check_resuming, screen
from hyla_repro.training.stack import facts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Benchmark:
    """What came of a module.

    Args:
        runs: one row per finished run: name, task, preset, seed, scores, what is known of the module, cost and
            provenance.
        left: the runs that are not finished; the same call goes on with them.
    """

    name: str
    preset: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: pd.DataFrame
    left: tuple[str, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its row among ours, task by task, as `rows.ranked`; ours are the committed ones, and those trained here."""
        return pd.concat([table.assign(task=task) for task, table in self._by_task().items()]).set_index(
            ["task", "rank"]
        )

    def plot(self) -> "Figure":
        """Draw the table, a panel for each task."""
        from hyla_repro.studies.mixers.figures import standing

        return standing(self._by_task(), {self.name})

    def _by_task(self) -> dict[str, pd.DataFrame]:
        return {task: beside(self.runs, task, self.preset, self.seeds) for task in self.tasks}

    def save(self, path: Path | str) -> Path:
        """Write the runs as one sealed file, which `hyla-repro leaderboard add` takes.

        Raises: ValueError if runs are left, so that no seed is picked.
        """
        if self.left:
            raise ValueError(f"{len(self.left)} runs are not finished, such as {self.left[0]}: call benchmark again")
        write_atomically(Path(path), seal({"name": self.name, "runs": self.runs.to_dict("records")}))
        return Path(path)


def benchmark(
    make_model: MakeModel,
    tasks: Sequence[str] = tuple(CELLS),
    preset: str = "laptop",
    *,
    name: str,
    seeds: Sequence[int] | None = None,
    budget: str | None = None,
    device: str = "cpu",
    ledger: Ledger | None = None,
    progress: bool = True,
) -> Benchmark:
    """Train a module as our rows of the main comparisons were trained, and show it beside them.

    Steps, batches, loss, AdamW, its schedule and what it decays (parameters of more than one axis), and evaluation are
    ours; attention dropout, which our models have (Deviation D1), is the module's own affair, and nothing is compiled.
    Call it again after an interruption: what is finished is kept, the rest goes on to the same result. On a CPU,
    `torch.set_num_threads(1)` is fastest at `laptop`.

    Args:
        make_model: a `ModelSpec` to a module that maps (b, n_tokens, n_inputs) to (b, n_read, n_outputs), its weights
            drawn anew. It is called with torch's generator seeded.
        tasks: of fuzzy_logic (32 examples, 70 % of the combinations held out) and sraven (25 % held out).
        preset: smoke (seconds), laptop (minutes of a core for each run), or paper.
        name: of the row; letters, digits and `._+-`. A changed model needs another.
        seeds: of splits, first weights and batches; those of our main comparison if None.
        budget: a time such as 30m, after which it stops and says what is left.
        device: where to train, "cpu" or "cuda".
        ledger: where runs are kept; HYLA_REPRO_RUNS if None.
        progress: show a bar for each run.

    Raises:
        ValueError: unknown words, or a module that cannot be trained or resumed, see `screen` and `check_resuming`; all
            before training starts. Also a name that stands for another module here, or for one of our rows.
        DivergedError: a loss was not finite.
        MissingPackageError: without the packages of `hyla-repro[book]`.
    """
    if find_spec("scipy") is None:
        raise MissingPackageError("intervals over seeds need `pip install hyla-repro[book]`")
    seconds, ledger, entries = None if budget is None else seconds_of(budget), ledger or Ledger(), list[Entry]()
    seeds = seeds_of(preset) if seeds is None else seeds
    chosen = tuple(dict.fromkeys(whole_number("seed", seed, 0, "it is one word of a key", 2**32 - 1) for seed in seeds))
    if not tasks or not chosen or isinstance(tasks, str):
        raise ValueError(f"tasks={tasks!r} and seeds={seeds!r}: give a tuple of at least one each")
    for task in dict.fromkeys(tasks):
        entries += _entries(make_model, task, preset, name, chosen, device)
    for entry in entries:
        _refuse_what_is_there(entry, ledger)
    left = train(entries, ledger, device, seconds, progress)
    finished = [_row(entry, preset, ledger) for entry in entries if entry not in left]
    labels = tuple(run.label for run in left)
    return Benchmark(name, preset, tuple(dict.fromkeys(tasks)), chosen, pd.DataFrame(finished), labels)


def enter(task: str, preset: str, seed: int, name: str, **module: Any) -> Entry:
    """Return a run with everything but the module from our own run of that cell.

    Raises: ValueError for unknown words, or a name that cannot be one or is that of our rows.
    """
    if name in NAMES or name in NAMES.values():
        raise ValueError(f"name={name!r} is one of our rows: choose another")
    shared = {field: getattr(cell(task, preset, seed), field) for field in TrainingRun.model_fields}
    return Entry(**shared, name=name, **module)


def _entries(
    make_model: MakeModel, task: str, preset: str, name: str, seeds: Sequence[int], device: str
) -> list[Entry]:
    """Return a run for each seed, after a look at the module of the first."""
    specs = [_spec(task, preset, seed) for seed in seeds]
    inputs = cell(task, preset, seeds[0]).build_task().batch("train", 0, 5, device).inputs
    facts = describe_module(make_model, screen(make_model, specs[0], inputs))
    entries = [enter(task, preset, spec.seed, name, build=partial(make_model, spec), **facts) for spec in specs]
    check_resuming(entries[0], device)
    return entries


def _spec(task: str, preset: str, seed: int) -> ModelSpec:
    run = cell(task, preset, seed)
    settings, sizes = run.task_settings, run.task_settings.model_sizes
    return ModelSpec(task, preset, sizes["n_inputs"], sizes["n_outputs"], settings.n_tokens, settings.n_read,
                     run.model.causal, seed, settings)  # fmt: skip


def _refuse_what_is_there(entry: Entry, ledger: Ledger) -> None:
    """Refuse to go on where another module stopped, or one that diverged."""
    state = ledger.state(entry)
    if state == "diverged":
        raise ValueError(f"{entry.label} diverged before: give the changed model another name, or delete "
                         f"{ledger.folder(entry)}")  # fmt: skip
    if state == "done":
        entry.refuse_other(ledger.result(entry)["experiment"])
    elif checkpoints := ledger.load_checkpoints(entry)[0]:
        entry.refuse_other(facts_of(checkpoints[0])["module"])


def _row(entry: Entry, preset: str, ledger: Ledger) -> dict[str, Any]:
    result = ledger.result(entry)
    return {
        "id": entry.id, "name": entry.name, "task": entry.task_name, "preset": preset, "seed": entry.seed,
        **result["scores"], **entry.module_facts, "train_loss": result["train_loss"], "minutes": result["minutes"],
        **result["provenance"],
    }  # fmt: skip
