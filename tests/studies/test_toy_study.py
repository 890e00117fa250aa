"""A study that the package does not know goes all the way, from training to its page, by what is public."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from hyla_repro import paths, studies
from hyla_repro.ledger.data_folder import DataFolder
from hyla_repro.studies import Chapter, Study

STUDY = Path(__file__).with_name("toy_study.py")
CELLS = [
    'preset = "laptop"\ntrain = False\ndevice = "cpu"',
    'import toy_study\nfrom hyla_repro.book import notebook\n\nshown = notebook.start("toy1", globals())',
    "path = shown.save(toy_study.draw(shown.best))\nassert shown.cost()['runs'].sum() == 3",
    'print(shown.verdicts().table.loc["toy-learns", "verdict"])',
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A book with one chapter more, and none of its results yet."""
    root = tmp_path_factory.mktemp("project")
    for name in ("data", "book"):
        shutil.copytree(paths.ROOT / name, root / name, ignore=shutil.ignore_patterns("_build", "vendor"))
    shutil.copy(paths.ROOT / "README.md", root)
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    page.cells[0].metadata["tags"] = ["parameters"]
    page.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(page, root / "book" / "toy1-mean.ipynb")
    return root


def call(project: Path, *words: str) -> str:
    """Return what the study's own command line says."""
    environment = os.environ | {
        "HYLA_REPRO_ROOT": str(project),
        "HYLA_REPRO_RUNS": str(project / "runs"),
        "PYTHONPATH": os.pathsep.join([str(STUDY.parent), str(paths.CODE)]),
    }
    done = subprocess.run([sys.executable, STUDY, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_outside_the_package_is_trained_collected_decided_and_shown(project: Path) -> None:
    committed = {path.name: path.read_bytes() for path in paths.FIGURES.glob("*.png")}
    assert "3 of 3 runs of toy1 at preset laptop are finished" in call(project, "run", "toy1", "--preset", "laptop")
    assert call(project, "collect").startswith("added 3 runs; ")
    data = DataFolder(project / "data")
    assert len(data.read("mean_runs.csv").splitlines()) == 4
    assert data.verify() == len(DataFolder().manifest()) + 2, "rows and curves, and nothing else is new"

    call(project, "report")
    row = next(r for r in (project / "book/report.md").read_text().splitlines() if "[toy-learns](toy1-mean.ipynb)" in r)
    assert row.split(" | ")[1:3] == ["**reproduced** (laptop)", "A mean is easy."]
    assert row.endswith("| 100 |")
    rule = next(r for r in (project / "book/report.md").read_text().splitlines() if r.startswith("| `toy-learns` |"))
    assert rule.endswith("| not locked |")
    assert "| A mean is easy. | reproduced (laptop) |" in (project / "README.md").read_text()
    costs = [line for line in (project / "book/cost.md").read_text().splitlines() if line.startswith("| `toy1` |")]
    assert all(line.endswith("|  |  |") for line in costs), "no release and no paper say what it costs"
    assert len(costs) >= 2, "laptop and paper, per machine"

    output = project / "reproduced" / "toy1.ipynb"
    call(project, "notebook", "toy1", "-p", "preset=laptop", "--output", str(output.parent))
    assert json.loads(output.read_text())["cells"][-1]["outputs"][0]["text"] == ["✓\xa0reproduced\n"]
    (picture,) = project.rglob("toy1.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert committed == {path.name: path.read_bytes() for path in paths.FIGURES.glob("*.png")}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (Study("new", "New", (Chapter("toy1"), Chapter("fig4"))), "figure 'fig4' of study 'sraven'"),
        (Study("new", "New", (Chapter("all"),)), "figure 'all' of study 'idea'"),
        (Study("sraven", "New", ()), "name 'sraven' or task None of study 'sraven'"),
        (Study("new", "New", (), task="fuzzy_logic"), "or task 'fuzzy_logic' of study 'fuzzy_logic'"),
        (Study("new", "New", (Chapter("toy1"), Chapter("toy1"))), "figure 'toy1' twice"),
    ],
)
def test_what_another_study_has_is_refused(monkeypatch: pytest.MonkeyPatch, study: Study, message: str) -> None:
    known = [*studies.STUDIES]
    monkeypatch.setattr(studies, "STUDIES", [*known])
    with pytest.raises(ValueError, match=message):
        studies.add(study)
    assert known == studies.STUDIES
