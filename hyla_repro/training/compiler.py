"""Programs made by torch.compile, whose cache a killed process may have left damaged and whose failure stops nobody."""

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from tqdm import tqdm

Program = Callable[..., Any]
Programs = tuple[Program, ...]


def compile_programs(functions: Programs, try_out: Callable[..., None]) -> tuple[Programs, bool]:
    """Return the functions compiled or, where the compiler fails twice, as they are; and whether they are compiled.

    Args:
        try_out: calls the programs that it is given, which compiles them, and takes back all that this changed.

    Raises: OSError if there is no space for what the compiler writes.
    """
    from torch._inductor.runtime.runtime_utils import (  # type: ignore[attr-defined]
        cache_dir,
        default_cache_dir,
    )

    _keep_instruction_sets_apart(cache_dir())
    remove_unfinished(Path(cache_dir()), Path(default_cache_dir(), "precompiled_headers"))
    for cache, then in (
        (nullcontext(), "compiling again, in an empty cache"), (_empty_cache(), "going on uncompiled, which is slower")
    ):  # fmt: skip
        # After eight shapes in one process the compiler leaves a function uncompiled and only warns.
        torch.compiler.reset()
        programs = tuple(map(torch.compile, functions))
        with cache:
            try:
                try_out(*programs)
                return programs, True
            except BackendCompilerFailed as error:
                _refuse_full_disk(error, cache_dir())
                reason = " ".join(f"{type(error.inner_exception).__name__}: {error.inner_exception}".split())
        # A C++ compiler's own words come last, after a long command.
        reason = reason if len(reason) < 300 else f"{reason[:100]} ... {reason[-200:]}"
        tqdm.write(f"the compiler failed; {then}: {reason}", file=sys.stderr)
    return functions, False


def _keep_instruction_sets_apart(folder: str) -> None:
    """Give this processor a cache of its own below the one that torch uses.

    Without a GPU torch finds programs by their source alone, so that a folder that moved between machines, or that two
    share, serves programs of another instruction set. Some gave infinite losses, others wrong ones without a word.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if Path(folder).name != capability:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder, capability))


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Use nothing that was compiled before: this helps against any damage, and removes nothing of anybody's."""
    from torch._inductor import config
    from torch._inductor.utils import fresh_inductor_cache

    headers = "cpp_cache_precompile_headers"  # kept outside the cache, by newer versions of torch
    with fresh_inductor_cache(), config.patch({headers: False} if hasattr(config, headers) else {}):
        yield


@contextmanager
def undone(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give tensors their values back in the end, whatever succeeded or failed meanwhile."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)


def _refuse_full_disk(error: BackendCompilerFailed, folder: str) -> None:
    words = os.strerror(errno.ENOSPC)
    if getattr(error.inner_exception, "errno", None) == errno.ENOSPC or words in str(error):
        raise OSError(errno.ENOSPC, words, folder) from error


def remove_unfinished(libraries: Path, headers: Path) -> list[Path]:
    """Remove what a killed C++ compiler left half written, and return it; the next compilation makes it anew.

    torch takes any file of the right name for finished. An empty library then fails every later process that wants
    it, a cut one ends them by SIGBUS, and a cut precompiled header fails the compilation of every shape. What is
    removed is of no use to anybody, and nobody is writing it: torch holds the lock of its name from before it looks for
    a file until that is written.

    Args:
        libraries, headers: torch's folders of both.
    """
    made = dict.fromkeys(libraries.glob("*/*.so"), libraries / "locks")
    made |= dict.fromkeys(headers.glob("*.gch"), headers / "locks")
    removed = []
    for path, locks in made.items():
        with suppress(OSError):  # locked, of another user, or gone since
            if is_finished(path):
                continue
            with (locks / f"{path.name.partition('.')[0]}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not is_finished(path):
                    path.unlink()
                    removed.append(path)
    return removed


def is_finished(path: Path) -> bool:
    """Return whether a library or header is whole, and torch has removed the folder in which it was built."""
    building = path.with_name(f"{path.stem}_CxxBuild").exists()
    return not building and (path.suffix != ".so" or is_whole(path))


def is_whole(library: Path) -> bool:
    """Return whether a library has all its bytes: linkers write the table of sections, which comes last, at the end."""
    with library.open("rb") as file:
        header, size = file.read(64), os.fstat(file.fileno()).st_size
    if len(header) < 64 or not header.strip(b"\0"):
        return False
    if header[:5] != b"\x7fELF\x02":  # of a system whose libraries have another form
        return True
    order = "<" if header[5:6] == b"\x01" else ">"
    (start,), (each, count) = struct.unpack(f"{order}Q", header[40:48]), struct.unpack(f"{order}HH", header[58:62])
    return size >= start + each * count > 0
