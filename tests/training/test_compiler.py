"""The compiler: a damaged cache is mended, and a step that cannot be compiled is taken uncompiled, with a word."""

import errno
import fcntl
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from hyla_repro.experiment import Experiment
from hyla_repro.ledger.runs import Ledger
from hyla_repro.training import loop
from hyla_repro.training.compiler import (
    _keep_instruction_sets_apart,
    compile_programs,
    is_whole,
    remove_unfinished,
)
from hyla_repro.training.provenance import compiler_available
from hyla_repro.training.stack import Stack

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]
LIBRARY = Path(math.__file__ or "")  # any shared library will do


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for damage here only: other processes may be compiling into the machine's own cache."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.runtime.runtime_utils.default_cache_dir", lambda: str(tmp_path / "cache"))


# --- what a killed compiler leaves --------------------------------------------------------------------------


@pytest.mark.skipif(LIBRARY.suffix != ".so" or sys.platform != "linux", reason="needs a shared library in ELF form")
def test_every_cut_of_a_library_is_found(tmp_path: Path) -> None:
    content, cut = LIBRARY.read_bytes(), tmp_path / "cut.so"
    assert is_whole(LIBRARY)
    for size in [*range(70), *range(70, len(content), 997), len(content) - 1]:
        cut.write_bytes(content[:size])
        assert not is_whole(cut), size
    cut.write_bytes(bytes(len(content)))
    assert not is_whole(cut)


def test_only_what_is_unfinished_and_nobody_writes_is_removed(tmp_path: Path) -> None:
    cache, headers = tmp_path / "cache", tmp_path / "headers"
    for folder in (cache / "ab", cache / "locks", headers / "locks"):
        folder.mkdir(parents=True)
    sound = b"\xcf\xfa\xed\xfe of another system".ljust(64)
    contents = {
        "ab/whole.main.so": sound, "ab/empty.so": b"", "ab/empty.main.so": b"\0" * 70, "ab/interrupted.main.so": sound,
        "ab/busy.main.so": b"", "ab/source.py": b"", "top.so": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (cache / name).write_bytes(content)
    for name in ("whole", "interrupted"):
        (headers / f"{name}.h.gch").write_bytes(b"gpch")
    (cache / "ab/interrupted.main_CxxBuild").mkdir()
    (headers / "interrupted.h_CxxBuild").mkdir()
    with (cache / "locks/busy.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        removed = remove_unfinished(cache, headers)
    assert {path.name for path in removed} == {"empty.so", "empty.main.so", "interrupted.main.so", "interrupted.h.gch"}
    assert not any(path.exists() for path in removed)
    assert {path.name for path in remove_unfinished(cache, headers)} == {"busy.main.so"}
    left = {"whole.main.so", "source.py", "top.so", "whole.h.gch"}
    assert left == {path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"}


# --- what becomes of a step ---------------------------------------------------------------------------------


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Make the first programs fail when they are called, after having done what they are for."""

    def set_failures(times: int, error: BaseException | None = None) -> list[int]:
        made: list[int] = []

        def compile(function: Callable) -> Callable:
            made.append(1)
            failing = len(made) <= 2 * times and len(made) % 2 == 0  # the second of each two

            def program(*arguments: object) -> object:
                result = function(*arguments)
                if failing:
                    raise error or BackendCompilerFailed(print, ImportError("a.so: file\ntoo short"), None)
                return result

            return program

        monkeypatch.setattr(torch, "compile", compile)
        return made

    return set_failures


@pytest.mark.parametrize(("failures", "compiled"), [(0, True), (1, True), (2, False)])
def test_a_failing_compiler_changes_no_result(
    failures: int, compiled: bool, fail: Callable, run: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Stack([run])
    made = fail(failures)
    stack = Stack([run], use_compiler=True)
    for _ in range(3):
        plain.advance()
        stack.advance()
    assert stack.to_bytes(0, {}) == plain.to_bytes(0, {})
    assert stack.compiled is compiled
    assert len(made) == 2 * min(failures + 1, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == failures
    assert all("a.so: file too short" in line for line in said)
    assert compiled or "going on uncompiled" in said[-1]


def test_a_run_says_that_it_was_not_compiled(
    fail: Callable, run: Experiment, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_COMPILE_FROM_STEPS", 0)
    monkeypatch.setattr(loop, "compiler_available", lambda device: True)
    fail(2)
    assert loop.train([run], ledger, progress=False) == []
    assert ledger.result(run)["provenance"]["compiled"] is False


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("inner", [no_space(), RuntimeError(f"g++: {os.strerror(errno.ENOSPC)}")], ids=["torch", "g++"])
def test_a_full_disk_is_named(inner: Exception, fail: Callable, run: Experiment, tmp_path: Path) -> None:
    fail(1, BackendCompilerFailed(print, inner, None))
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'cache'}") as caught:
        Stack([run], use_compiler=True).advance()
    assert caught.value.errno == errno.ENOSPC


def test_errors_of_ours_are_not_taken_for_the_compilers(fail: Callable) -> None:
    fail(1, ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError, match="ours"):
        compile_programs((abs, abs), lambda first, second: second(first(1)))


# --- the real compiler --------------------------------------------------------------------------------------

STEPS = """
import sys
import torch
from hyla_repro.experiment import Experiment
from hyla_repro.training.stack import Stack
torch.set_num_threads(1)
stack = Stack([Experiment.model_validate_json(sys.argv[1])], use_compiler=True)
for _ in range(3):
    stack.advance()
print(stack.compiled)
open(sys.argv[2], "wb").write(stack.to_bytes(0, {}))
"""


def compile_and_step(run: Experiment, folder: Path, **environment: str) -> tuple[str, str, bytes]:
    """Return whether the step was compiled, what stderr says, and the state after three steps."""
    settings = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)} | environment
    command = [sys.executable, "-c", STEPS, run.model_dump_json(), str(folder / "state")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip(), done.stderr, (folder / "state").read_bytes()


@pytest.mark.slow
def test_a_damaged_cache_is_mended_and_changes_no_bit(make_run: Make, tmp_path: Path) -> None:
    if not compiler_available("cpu"):
        pytest.skip("needs a C++ compiler")
    run, sound = make_run(), tmp_path / "sound"
    sound.mkdir()
    compiled, _, expected = compile_and_step(run, sound)
    assert compiled == "True"
    folder = Path(shutil.copytree(sound, tmp_path / "damaged"))
    libraries = sorted(folder.glob("cache/*/*/*.so"))
    assert len({path.name.count(".") for path in libraries}) == 2  # programs, and tests of the processor
    damages = [lambda content: b"", lambda content: content[: len(content) // 10], lambda content: content[:-1]]
    for library, damage in zip(libraries, damages * len(libraries), strict=False):
        library.write_bytes(damage(library.read_bytes()))
    assert compile_and_step(run, folder) == ("True", "", expected)
    assert all(map(is_whole, libraries))
    # A cut header without a trace of its interruption is beyond us, yet the second attempt goes without it.
    for header in sound.glob("*/precompiled_headers/*.gch"):
        header.write_bytes(header.read_bytes()[:100_000])
    shutil.rmtree(sound / "cache")
    compiled, said, state = compile_and_step(run, sound)
    assert (compiled, state) == ("True", expected)
    assert not list(sound.glob("*/precompiled_headers")) or "compiling again, in an empty cache" in said


@pytest.mark.slow
def test_a_compiler_that_always_fails_is_done_without(make_run: Make, tmp_path: Path) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    compiler.chmod(0o755)
    compiled, said, state = compile_and_step(make_run(), tmp_path, CXX=str(compiler))
    plain = Stack([make_run()])
    for _ in range(3):
        plain.advance()
    assert (compiled, state) == ("False", plain.to_bytes(0, {}))
    assert "going on uncompiled, which is slower: " in said


def test_every_instruction_set_has_a_cache_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """torch finds programs by their source alone, and would take those of another processor."""
    for capability in ("AVX2", "AVX512", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
        _keep_instruction_sets_apart(str(tmp_path))
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / capability)
        _keep_instruction_sets_apart(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / capability), "once is enough"
