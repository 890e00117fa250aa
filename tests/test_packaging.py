"""The files that set the project up agree: pyproject, lock, conda environment, Makefile, workflows, citation."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import hyla_repro
from hyla_repro.paths import REPOSITORY

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
OPTIONAL = {name: list(map(Requirement, extra)) for name, extra in PROJECT["optional-dependencies"].items()}
# The series are files that come in a package, and a guest is trained by few; what these ask for the lock has not.
EXTRAS = [requirement for name, extra in OPTIONAL.items() if name not in ("series", "guests") for requirement in extra]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
CONDA_PIP = next(entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

# The platforms that the lock promises, as far as markers tell them apart.
PLATFORMS = [
    {
        "python_version": version, "python_full_version": f"{version}.7", "sys_platform": system,
        "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system], "os_name": "posix",
        "platform_machine": "x86_64", "implementation_name": "cpython", "platform_python_implementation": "CPython",
    }
    for version in ("3.11", "3.12") for system in ("linux", "darwin")
]  # fmt: skip
COMES_WITH_TORCH = re.compile(r"torch|triton|pytorch-triton.*|nvidia-.*|cuda-.*")


@cache
def lock() -> list[tuple[Requirement, list[str]]]:
    """Return the lock's entries, each with its hashes; a line of any other kind is an error."""
    text = re.sub(r"^\s*#.*\n?", "", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    entries = []
    for line in text.replace("\\\n", " ").strip().splitlines():
        requirement, *hashes = line.split("--hash=")
        entries.append((Requirement(requirement), [digest.strip() for digest in hashes]))
    return entries


def locked(name: str, platform: dict[str, str]) -> list[Version]:
    """Return the versions of a package that the lock installs on a platform: one, if the lock is right."""
    return [
        Version(str(entry.specifier).removeprefix("=="))
        for entry, _ in lock()
        if canonicalize_name(entry.name) == canonicalize_name(name)
        and (entry.marker is None or entry.marker.evaluate(platform))
    ]


def pip_text(requirement: Requirement) -> str:
    return str(requirement).replace(" ", "").replace('"', "'")


def test_every_locked_package_is_pinned_and_hashed() -> None:
    assert len(lock()) > 100
    for requirement, hashes in lock():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), f"{requirement} is not pinned"
        assert requirement.url is None
        assert hashes, f"{requirement} has no hash"
        for digest in hashes:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest), f"{requirement}: {digest}"


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml"])
def test_set_up_files_name_no_host_and_no_path(name: str) -> None:
    found = re.search(r"\w+://|file:|@ |(?<![\w.])/\w+/|--(extra-)?index|--find-links", (ROOT / name).read_text())
    assert found is None, f"{name} holds {found.group()!r}"


def test_lock_leaves_torch_to_the_platform() -> None:
    assert [entry.name for entry, _ in lock() if COMES_WITH_TORCH.fullmatch(canonicalize_name(entry.name))] == []


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: f"{p['sys_platform']}-{p['python_version']}")
def test_lock_serves_platform(platform: dict[str, str]) -> None:
    """Each dependency of pyproject has one version in the lock, within its bounds; torch has none."""
    for requirement in [*RUNTIME, *EXTRAS]:
        versions = locked(requirement.name, platform)
        if requirement.name == "torch":
            assert versions == []
            continue
        assert len(versions) == 1, f"{requirement} has {len(versions)} versions in the lock: run make lock"
        assert requirement.specifier.contains(versions[0]), f"{requirement}, but the lock has {versions[0]}"


def test_lock_holds_what_every_build_of_torch_needs() -> None:
    """Otherwise the install of torch, which has no hashes, would choose these packages' versions."""
    needed = [Requirement(text) for text in requires("torch") or []]
    needed = [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    names = [r.name for r in needed if not COMES_WITH_TORCH.fullmatch(canonicalize_name(r.name))]
    assert len(names) >= 5
    assert [name for name in names if not locked(name, PLATFORMS[0])] == []


def test_series_come_without_the_dependencies_of_their_package() -> None:
    (series,) = OPTIONAL["series"]
    assert f"SERIES := {series}\n" in MAKEFILE
    assert re.search(r"install --no-deps '?\$\(SERIES\)", MAKEFILE)
    assert locked(series.name, PLATFORMS[0]) == []


def test_torch_has_a_lower_bound_only() -> None:
    torch = next(r for r in RUNTIME if r.name == "torch")
    assert str(torch.specifier) == ">=2.6"


def test_jupyter_book_stays_below_two() -> None:
    bounds = next(r for r in EXTRAS if r.name == "jupyter-book").specifier
    assert bounds.contains("1.0.4.post1")
    assert not bounds.contains("2.0.0", prereleases=True)
    for platform in PLATFORMS:
        assert locked("jupyter-book", platform) == [Version("1.0.4.post1")]


def test_conda_environment_is_the_lock() -> None:
    pins = [pip_text(Requirement(text)) for text in CONDA_PIP if "==" in text and not text.startswith("torch==")]
    assert pins == [pip_text(requirement) for requirement, _ in lock()], "run make lock"
    assert "--editable ." in CONDA_PIP
    python = next(text for text in ENVIRONMENT if str(text).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python.removeprefix("python="))


def test_conda_and_make_install_the_same_torch() -> None:
    pin = re.search(r"^TORCH \?= (torch==(\S+))$", MAKEFILE, flags=re.MULTILINE)
    assert pin is not None
    assert pin[1] in CONDA_PIP
    assert Version(pin[2]) >= Version("2.6")


def test_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == hyla_repro.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == hyla_repro.__version__


def test_zenodo_is_told_what_the_citation_says() -> None:
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    same = ("title", "version", "license", "keywords")
    assert {name: zenodo[name] for name in same} == {name: citation[name] for name in same}
    assert zenodo["upload_type"] == citation["type"]
    assert zenodo["creators"] == citation["authors"]
    (related,), (paper,) = zenodo["related_identifiers"], citation["preferred-citation"]["identifiers"]
    assert related["identifier"] == paper["value"]


def test_refusals_name_the_repository_of_the_project() -> None:
    assert PROJECT["urls"]["Source"] == REPOSITORY


def test_installed_package_is_this_one() -> None:
    try:
        installed = distribution("hyla-repro")
    except PackageNotFoundError:
        pytest.skip("hyla-repro is imported from its folder, not installed")
    assert installed.version == hyla_repro.__version__
    scripts = {entry.name: entry.value for entry in installed.entry_points if entry.group == "console_scripts"}
    assert scripts == PROJECT["scripts"]


def test_workflows_and_pages_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    for path in [*WORKFLOWS, ROOT / ".ci" / "run", ROOT / "CONTRIBUTING.md"]:
        called = re.findall(r"(?:^|`|run: |  )make ([a-z]+)(?=$|[\s`])", path.read_text(), flags=re.MULTILINE)
        assert called, f"{path} calls no target"
        assert set(called) <= targets, f"{path} calls {set(called) - targets}"


def test_the_tree_shows_every_file_and_folder_of_the_library_and_no_other() -> None:
    tree = re.search(r"    hyla_repro/\n((?:      .*\n)+)", (ROOT / "CONTRIBUTING.md").read_text())[1]
    shown = {name for line in tree.splitlines() for name in re.split(" {2,}", line.strip())[0].split()}
    there = {path.name + "/" * path.is_dir() for path in (ROOT / "hyla_repro").iterdir()}
    assert shown == there - {"__init__.py", "__main__.py", "__pycache__/"}
    studies = re.search(r"      studies/ .*: (.*)\n", tree)[1].split(", ")
    assert {*studies} == {f"{path.parent.name}/" for path in (ROOT / "hyla_repro" / "studies").glob("*/__init__.py")}


def test_workflows_pin_actions_by_commit() -> None:
    used = [line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text())]
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+(\.\d+)*", line)] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_plain_make_builds_the_book_strictly() -> None:
    """Without -W a failing notebook gives a green build with a traceback on the page."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--dry-run", "--no-print-directory", "--old-file=.venv/.installed"]
    planned = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert planned.strip() == ".venv/bin/jupyter-book build book/ -W -n --keep-going"
