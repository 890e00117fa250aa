"""A wheel, made from the sdist and installed where the repository is out of sight: what it has, and what it refuses."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest

import hyla_repro
from hyla_repro.book import commands
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.paths import CODE, REPOSITORY
from hyla_repro.studies.trained import carried

pytestmark = pytest.mark.slow

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
SDIST = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
SET_UP = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
# Every trained model, whether it is in evaluation mode, its seeds, and the digest of what it says on a batch.
OUTPUTS = """
from hashlib import sha256
import torch, hyla_repro
from hyla_repro.studies.trained import trained_models
torch.set_num_threads(1)
for name, runs in trained_models().items():
    model = hyla_repro.load(name)
    batch = runs[0].build_task().batch("test", 0, 3)
    with torch.inference_mode():
        digest = sha256(model(batch.inputs).numpy().tobytes()).hexdigest()
    print(name, model.training, digest, *runs)
"""


class Installed(NamedTuple):
    """A package in a folder of its own, the sdist it comes of, and an empty folder to work in."""

    package: Path
    sdist: Path
    folder: Path

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run Python where this package is the only one of its name; all others are those of this environment."""
        environment = {"PYTHONPATH": str(self.package), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        command = (sys.executable, *command)
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.package / "bin" / "hyla-repro", *words)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    source, package = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("hyla_repro", "data", "tests"):
        shutil.copytree(CODE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SET_UP:
        shutil.copy(CODE / name, source)
    subprocess.run([sys.executable, "-c", SDIST], cwd=source, check=True, capture_output=True)
    (sdist,) = source.glob("dist/*.tar.gz")
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(sdist.parent), str(sdist)]
    subprocess.run([*PIP, *wheel], check=True)
    install = ["install", "--no-deps", "--no-index", "--target", str(package), *source.glob("dist/*.whl")]
    subprocess.run([*PIP, *install], check=True)
    return Installed(package, sdist, tmp_path_factory.mktemp("elsewhere"))


def test_it_is_this_version_and_no_commit(installed: Installed) -> None:
    assert installed.call("--version").stdout == f"hyla-repro {hyla_repro.__version__}\n"
    found = installed.run("-c", "import hyla_repro; print(hyla_repro.__file__)").stdout
    assert Path(found.strip()).is_relative_to(installed.package)


def test_it_carries_texts_and_one_seed_of_each_trained_model(installed: Installed) -> None:
    data = DataFolder(installed.package / "hyla_repro" / "data")
    assert data.verify() == len(carried(DataFolder()))
    with tarfile.open(installed.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"data/{name}" for name in data.manifest()} <= names
    assert not any(name.startswith(("tests", "book", "figures")) for name in names)


def test_status_counts_the_runs_of_the_working_directory(installed: Installed) -> None:
    done = installed.call("status")
    assert done.returncode == 0, done.stderr
    said, where, *_ = done.stdout.splitlines()
    assert said == f"an installed package has no results; those of the book come with `git clone {REPOSITORY}`"
    assert where == f"runs in {installed.folder / 'runs'}"
    assert done.stdout.count("git clone") == 1
    assert re.search(r"^  smoke  fig2b +3 runs: 3 missing$", done.stdout, re.MULTILINE)


def test_runs_are_planned_and_trained_in_the_working_directory(installed: Installed) -> None:
    planned = installed.call("run", "fig2c", "--preset", "smoke", "--budget", "5s", "--plan")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.count("git clone") == 1
    assert not list(installed.folder.iterdir())
    trained = installed.call("run", "fig2b", "--where", "method=linear")
    assert trained.returncode == 0, trained.stderr
    assert "1 of 1 runs of fig2b at preset smoke are finished" in trained.stdout
    assert len(list(installed.folder.glob("runs/*/result.json"))) == 1
    assert "2 missing, 1 done" in installed.call("status", "--preset", "smoke").stdout
    assert installed.call("export", "out", "--preset", "smoke").returncode == 0


def test_commands_that_need_the_repository_say_so_in_a_line(installed: Installed) -> None:
    arguments = {"compute": ["paths"], "lock": ["--why", "because"], "leaderboard": ["add", "row.json"],
                 "notebook": ["fig1"]}  # fmt: skip
    names = [command.name for command in commands.app.registered_commands]
    assert {"collect", "verify", "report", "lock", "pictures", "notebook", "reproduce"} <= {*names}
    for name in names:
        done = installed.call(name, *arguments.get(name, []))
        assert done.returncode == 2, name
        assert done.stderr == (
            f"error: `hyla-repro {name}` needs the book and all of its results, which are no part of an installed "
            f"package: `git clone {REPOSITORY}`, and call it there\n"
        )
        assert not done.stdout
        assert installed.call(name, "--help").returncode == 0


def test_trained_models_are_those_of_the_repository(installed: Installed) -> None:
    here = subprocess.run([sys.executable, "-c", OUTPUTS], cwd=CODE, capture_output=True, text=True, check=True)
    there = installed.run("-c", OUTPUTS)
    assert there.returncode == 0, there.stderr
    models = [line.split() for line in there.stdout.splitlines()]
    assert {"hyla-sraven-k2", "softmax-fuzzy-logic", "linear-rms-head-shakespeare"} <= {name for name, *_ in models}
    assert all((training, seeds) == ("False", ["0"]) for _, training, _, *seeds in models)
    assert [line.split()[:3] for line in here.stdout.splitlines()] == [model[:3] for model in models]


def test_other_seeds_are_in_the_repository(installed: Installed) -> None:
    done = installed.run("-c", "import hyla_repro; hyla_repro.load('hyla-sraven-k2', seed=1)")
    assert done.stderr.splitlines()[-1] == (
        f"ValueError: no weights of hyla-sraven-k2 with seed=1 here, only with 0; `git clone {REPOSITORY}` has others"
    )


def test_damaged_weights_are_refused(installed: Installed) -> None:
    (path, *_) = sorted(installed.package.glob("hyla_repro/data/models/*.safetensors"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = installed.run("-c", OUTPUTS)
    path.write_bytes(good)
    assert f"{path} was altered" in done.stderr
    assert done.stderr.endswith("install hyla-repro again\n")
