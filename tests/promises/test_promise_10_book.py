"""Promise 10: the book is the same bytes twice, fails as often as a cell does, and needs no network.

Of promise 5 too: it needs no right to write into data/.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from hyla_repro import paths
from hyla_repro.book import pictures

ROOT = Path(__file__).resolve().parents[2]
Count = Callable[[bool], None]
CHAPTER = "figa1-hyla"

BUILD = "from jupyter_book.cli.main import main; main(['build', 'book/', '-W', '-n', '--keep-going'])"
# In a namespace of its own a process has no network but a loopback device that is down, over which Jupyter talks to
# its kernels; data/ becomes a mount of itself that refuses to be written. Then the command takes this process's place.
CUT_OFF = """
import fcntl, os, socket, struct, subprocess, sys
with socket.socket() as device:
    fcntl.ioctl(device, 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
subprocess.run(["mount", "--bind", "data", "data"], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", "data"], check=True)
try:
    open("data/runs.csv", "ab")
    sys.exit("data/ can be written")
except OSError as error:
    assert error.errno == 30, error
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
    sys.exit("there is a network")
except OSError as error:
    assert error.errno == 101, error
assert [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:] == ["lo"]
os.execv(sys.argv[1], sys.argv[1:])
"""
UNSHARE = ["unshare", "-m", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-m", "-n"]


def cannot_cut_off() -> str:
    """Return why commands cannot be run without network and with data/ read-only, or nothing."""
    if not shutil.which("unshare") or not shutil.which("mount"):
        return "needs Linux's unshare and mount"
    done = subprocess.run([*UNSHARE, sys.executable, "-c", CUT_OFF, shutil.which("true")], cwd=ROOT,
                          capture_output=True, text=True)  # fmt: skip
    return f"this system allows no such namespaces: {done.stderr.strip()[-200:]}" if done.returncode else ""


def run(repository: Path, *command: str, cut_off: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(repository), "HYLA_REPRO_RUNS": str(repository / "runs")}
    environment |= {"PYTHONHASHSEED": "random", "OMP_NUM_THREADS": "1"}
    launcher = [*UNSHARE, sys.executable, "-c", CUT_OFF] if cut_off else []
    return subprocess.run(
        [*launcher, sys.executable, *command], cwd=repository, env=environment, capture_output=True, text=True
    )


def build(repository: Path, cut_off: bool = False) -> subprocess.CompletedProcess[str]:
    return run(repository, "-c", BUILD, cut_off=cut_off)


def clone(target: Path) -> Path:
    """Copy the files that git knows, as they are now, into a repository of one commit, and return it."""
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if names.returncode:
        pytest.skip("copies what git tracks, and this is no checkout")
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return committed(target)


def committed(repository: Path) -> Path:
    """Commit everything, always as the same commit."""
    dated = {f"GIT_{who}_{what}": "2000-01-01T00:00:00Z" if what == "DATE" else "nobody"
             for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")}  # fmt: skip
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--no-gpg-sign", "-m", "all"]):
        subprocess.run(["git", *words], cwd=repository, env=os.environ | dated, check=True)
    return repository


def tiny(target: Path, chapter: str = CHAPTER) -> Path:
    """Return a repository whose book is this one's settings, an index, one chapter and the bibliography."""
    repository = clone(target)
    toc = f"format: jb-book\nroot: index\nchapters:\n  - file: {chapter}.ipynb\n  - file: bibliography.md\n"
    (repository / "book/_toc.yml").write_text(toc)
    # Pages that are not in this book cannot be linked to.
    page = repository / f"book/{chapter}.ipynb"
    if page.exists():
        page.write_text(re.sub(r"\[([^\[\]\n]+)\]\([\w-]+\.(?:md|ipynb)\)", r"\1", page.read_text()))
    (repository / "book/index.md").write_text(
        f"# Tiny\n\n{'A book of one chapter. ' * 10}\n\nBuilt from {{{{ commit }}}}.\n"
    )
    return committed(repository)


def pages(repository: Path) -> dict[str, bytes]:
    """Return every file of the built book; none is left out."""
    html = repository / "book/_build/html"
    return {str(path.relative_to(html)): path.read_bytes() for path in html.rglob("*") if path.is_file()}


class Builds(NamedTuple):
    """A book built from clean twice, in two places, the second time without network and with data/ read-only."""

    first: Path
    second: Path
    ended: list[int]
    said: str
    not_cut_off: str


def build_twice(make: Callable[[Path], Path], folder: Path) -> Builds:
    first, second, reason = make(folder / "first"), make(folder / "a second place"), cannot_cut_off()
    done = [build(first), build(second, cut_off=not reason)]
    said = "".join(one.stdout[-2000:] + one.stderr[-4000:] for one in done if one.returncode)
    return Builds(first, second, [one.returncode for one in done], said, reason)


@pytest.fixture(scope="module", params=["tiny", pytest.param("whole", marks=pytest.mark.promises)])
def builds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return build_twice(tiny if request.param == "tiny" else clone, tmp_path_factory.mktemp(request.param))


def test_promise_10_two_clean_builds_are_the_same_bytes(builds: Builds, count: Count) -> None:
    assert builds.ended == [0, 0], builds.said
    one, two = pages(builds.first), pages(builds.second)
    assert {"index.html", f"{CHAPTER}.html", "searchindex.js", f"_sources/{CHAPTER}.ipynb"} <= set(one) == set(two)
    different = [name for name in one if one[name] != two[name]]
    assert not different
    for name in one:
        count(one[name] == two[name])


def test_promise_10_the_book_needs_no_network_and_leaves_data_alone(builds: Builds, count: Count) -> None:
    if builds.not_cut_off:
        pytest.skip(builds.not_cut_off)
    count(builds.ended[1] == 0)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=builds.second, capture_output=True, text=True)
    count(changed.returncode == 0 and changed.stdout == "")
    check = [sys.executable, "tests/book/check_built_book.py", "book/_build/html"]
    done = subprocess.run(check, cwd=builds.second, capture_output=True, text=True)
    count(done.returncode == 0 and re.match(r"\d+ pages checked\n$", done.stdout) is not None)


def test_promise_10_a_build_draws_what_is_committed(builds: Builds, count: Count) -> None:
    """Into the build only, and the same but for the rounding that another instruction set may do."""
    for repository in (builds.first, builds.second):
        drawn = sorted((repository / "book/_build/figures").glob("*.png"))
        count("figa1.png" in {path.name for path in drawn})
        count(all(pictures.difference(path, paths.FIGURES / path.name) == "" for path in drawn))


def test_promise_10_a_build_has_one_stamp(builds: Builds, count: Count) -> None:
    html = [path.read_text() for path in (builds.first / "book/_build/html").glob("*.html")]
    below = {stamp for page in html for stamp in re.findall(r"Built from commit (?:<a[^>]*>)?<code>([^<]+)<", page)}
    count(len(below) == 1)
    # On the tiny book's first page, and on the whole one's about running it again.
    (stamp,) = below
    count(any(f"Built from {stamp}." in page or f'<span class="pre">{stamp}</span>' in page for page in html))


# --- failing cells ---------------------------------------------------------------------------------


def write_chapter(repository: Path, *sources: str) -> None:
    cells = [nbformat.v4.new_markdown_cell("# A chapter"), *map(nbformat.v4.new_code_cell, sources)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, repository / "book/chapter.ipynb")


@pytest.mark.parametrize("times", [2, pytest.param(3, marks=pytest.mark.promises)])
def test_promise_10_a_failing_cell_fails_every_build(times: int, tmp_path: Path, count: Count) -> None:
    repository = tiny(tmp_path / "book of one chapter", "chapter")
    page = repository / "book/_build/html/chapter.html"
    write_chapter(repository, "1 + 1", "raise ValueError('number ' + str(2 * 21))", "2 + 2")
    for _ in range(times):
        done = build(repository)
        count(done.returncode != 0 and "ValueError" in done.stderr and "number 42" in done.stderr)
        count(not page.exists())


@pytest.mark.promises
@pytest.mark.parametrize("cause", ["cell", "data", "library"])
def test_promise_10_a_chapter_that_stops_working_fails_until_it_is_mended(
    cause: str, tmp_path: Path, count: Count
) -> None:
    repository = tiny(tmp_path / "book of one chapter", "chapter")
    source = "from hyla_repro import broken, paths\nassert broken.VALUE == int(open(paths.DATA / 'broken').read()) == 1"
    good = {"cell": source, "data": "1", "library": "VALUE = 1\n"}
    bad = {"cell": source.replace("== 1", "== 2"), "data": "2", "library": "VALUE = 2\n"}

    def write(texts: dict[str, str]) -> None:
        write_chapter(repository, texts["cell"], "'seen'")
        (repository / "data/broken").write_text(texts["data"])
        (repository / "hyla_repro/broken.py").write_text(texts["library"])

    write(good)
    assert build(repository).returncode == 0
    write(good | {cause: bad[cause]})
    for _ in range(3):
        done = build(repository)
        count(done.returncode != 0 and "AssertionError" in done.stderr)
    write(good)
    count(build(repository).returncode == 0)


# --- everything ------------------------------------------------------------------------------------


@pytest.mark.promises
def test_promise_10_the_tests_need_no_network(tmp_path: Path, count: Count) -> None:
    if reason := cannot_cut_off():
        pytest.skip(reason)
    repository = clone(tmp_path / "repository")
    this = f"tests/promises/{Path(__file__).name}"
    done = run(repository, "-m", "pytest", "-q", "--ignore", this, "-p", "no:cacheprovider", cut_off=True)
    assert re.search(r"\d+ passed", done.stdout), done.stdout[-4000:] + done.stderr[-4000:]
    assert done.returncode == 0, done.stdout[-4000:]
    count(True)
