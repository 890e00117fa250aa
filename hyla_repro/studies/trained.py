"""Trained models by readable name: the weights that studies keep, and those of them that a wheel carries."""

from pathlib import Path
from typing import TYPE_CHECKING

from hyla_repro import paths
from hyla_repro.errors import choose
from hyla_repro.experiment import Experiment
from hyla_repro.ledger.data_folder import DataFolder, model_name
from hyla_repro.studies import PRESETS, kept

if TYPE_CHECKING:
    from hyla_repro.models import Transformer

# The weights of this seed name a model and are in every wheel; others are in the repository alone.
_SEED = 0


def trained_models(folder: DataFolder | None = None) -> dict[str, dict[int, Experiment]]:
    """Return the runs of the main comparisons whose weights are at hand, by name and seed.

    A name is that of the method and the task, such as hyla-sraven-k2. Its runs are of the largest preset that has them,
    and of several settings of the optimiser the one that the study lists first.

    Args:
        folder: of the weights; what comes with the code if None.

    Raises: DataError if its manifest cannot be read.
    """
    held = (folder or DataFolder(paths.SHIPPED)).manifest()
    found: dict[str, dict[int, Experiment]] = {}
    for preset in PRESETS:
        at_preset: dict[str, dict[int, Experiment]] = {}
        for run in kept(preset):
            if model_name(run) in held:
                name = f"{run.method}_{run.task_settings.short_name}".replace("_", "-")
                at_preset.setdefault(name, {}).setdefault(run.seed, run)
        found |= {name: runs for name, runs in at_preset.items() if _SEED in runs}
    return found


def carried(folder: DataFolder) -> list[str]:
    """Return the files of data/ that a wheel carries: the texts of language modelling, and one seed of each model."""
    texts = [name for name in folder.manifest() if Path(name).parent.name == "corpora" and not name.endswith(".py")]
    return [*texts, *(model_name(runs[_SEED]) for runs in trained_models(folder).values())]


def load(name: str, seed: int = _SEED) -> "Transformer":
    """Return a trained model on the CPU, in evaluation mode.

    Args:
        name: method and task, such as hyla-sraven-k2; `trained_models()` has all, with the runs that they come from.
        seed: of its training.

    Raises:
        ValueError: an unknown name or seed, naming those there are.
        DataError: weights that are missing or altered.
    """
    models = trained_models()
    runs = models[choose("trained model", name, models)]
    if seed not in runs:
        more = "" if paths.CHECKOUT else f"; `git clone {paths.REPOSITORY}` has others"
        raise ValueError(f"no weights of {name} with seed={seed!r} here, only with {', '.join(map(str, runs))}{more}")
    from hyla_repro.models.transformer import load_model

    return load_model(DataFolder(paths.SHIPPED).read(model_name(runs[seed])), runs[seed].model)
