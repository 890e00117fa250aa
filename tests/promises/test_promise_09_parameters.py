"""Promise 9: an impossible parameter is refused before a kernel starts, with the nearest name."""

import sys
import time
from collections.abc import Callable

import papermill
import pytest

from hyla_repro.cli import main

Count = Callable[[bool], None]

CASES = [
    ("fig2c", "preset=huge", "unknown preset 'huge'"),
    ("fig2c", "preset=laptp", "did you mean 'laptop'"),
    ("fig2c", "preset=1", "unknown preset 1"),
    ("fig2c", "presets=smoke", "did you mean 'preset'"),
    ("fig2c", "lr=0.1", "unknown parameter of fig2c 'lr'"),
    ("fig2c", "train=yes", "train='yes' is not a bool"),
    ("fig2c", "train=1", "train=1 is not a bool"),
    ("fig2c", "device=tpu", "unknown device 'tpu'"),
    ("fig2c", "device=cuda:99", "unknown device 'cuda:99'"),
    ("fig2b", "device=3", "device=3 is not a str"),
    ("fig2d", "n_heads=4", "unknown parameter of fig2d 'n_heads'"),
    ("tablea1", "seed=0", "unknown parameter of tablea1 'seed'"),
    ("fig1", "n_heads=0", "n_heads=0 is not a whole number from 1 to 64"),
    ("fig1", "n_heads=2.5", "n_heads=2.5 is not a whole number"),
    ("fig1", "n_heads=true", "n_heads=True is not a whole number"),
    ("fig1", "n_token=8", "did you mean 'n_tokens'"),
    ("fig1", "seed=-1", "seed=-1 is not a whole number from 0 to 4294967295"),
    ("figa1", "d_model=1e3", "d_model=1000.0 is not a whole number"),
    ("fig2a", "heldout_fraction=half", "heldout_fraction='half' is not a finite number"),
    ("fig2a", "heldout_fraction=NaN", "heldout_fraction=nan is not a finite number"),
    ("figa3", "preset", "parameter 'preset' has no value"),
    ("fig9", "preset=smoke", "unknown figure 'fig9'"),
]


@pytest.mark.parametrize("command", ["notebook", "reproduce"])
@pytest.mark.parametrize(("figure", "parameter", "message"), CASES)
def test_promise_09_impossible_parameters_are_refused_at_once(
    figure: str, parameter: str, message: str, command: str, count: Count, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(papermill, "execute_notebook", lambda *rest, **named: pytest.fail("a kernel was started"))
    monkeypatch.setattr(sys, "argv", ["hyla-repro", command, figure, "-p", parameter])
    started = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        main()
    count(caught.value.code == 2 and message in capsys.readouterr().err and time.monotonic() - started < 1.0)
