"""What packages offer without importing it: names, modules, and the marker for type checkers."""

import subprocess
import sys
from importlib.resources import files

import pytest

import hyla_repro


def test_names_and_modules_are_seen_and_found_without_an_import_of_their_own() -> None:
    program = (
        "import sys, hyla_repro; names = dir(hyla_repro); assert 'torch' not in sys.modules; "
        "assert {'__version__', 'attention', 'models', 'tasks', *hyla_repro.__all__} <= set(names), names; "
        "print(hyla_repro.tasks.SRaven.__name__, hyla_repro.attention.KeyValueCache.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["SRaven", "KeyValueCache"], done.stderr


def test_an_unknown_name_is_answered_by_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Hyla': it exports .*HypernetworkAttention.*tasks"):
        _ = hyla_repro.Hyla


def test_annotations_are_for_other_peoples_type_checkers_too() -> None:
    assert files("hyla_repro").joinpath("py.typed").is_file()
