"""Fixed evaluation sets: the problems that runs are scored on, files with digests, scores, and problems to look at."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import safetensors.torch
import torch

from hyla_repro import paths
from hyla_repro.errors import DataError
from hyla_repro.studies.sraven.figures import sraven_problem
from hyla_repro.tasks import SRaven
from hyla_repro.tasks.evaluation import CHUNK
from hyla_repro.tasks.sraven import RULES, EvaluationSet, evaluation_set, export, load, render, score
from hyla_repro.training import stack


@pytest.fixture(scope="module")
def small() -> EvaluationSet:
    return evaluation_set(problems=7)


# --- problems and files ---------------------------------------------------------------------------------------


def test_the_problems_are_those_that_runs_are_scored_on() -> None:
    task = SRaven(seed=3)
    drawn = evaluation_set(task, ("heldout",), 1003).problems["heldout"]
    assert CHUNK == stack.CHUNK
    for step, size in enumerate((500, 500, 3)):
        for whole, part in zip(drawn, task.batch("heldout", step, size), strict=True):
            assert torch.equal(whole[500 * step : 500 * step + size], part)


def test_the_published_set_never_changes() -> None:
    """Scores of other people's models refer to these problems."""
    assert evaluation_set(problems=600).digest == "69cb64cb699b94e1199e826a19cefc4a1e3a2d24fa5bc6047d67e46153f3256d"
    page = (paths.ROOT / "book" / "fig3-sraven.ipynb").read_text()
    assert evaluation_set().digest in page, "the chapter names the digest that others compare with"


def test_export_and_load_give_the_set_back(tmp_path: Path) -> None:
    task = SRaven(n_features=3, n_values=256, seed=7)
    digest = export(tmp_path / "sets", task, ("test", "heldout_unpermuted"), 11)
    loaded, drawn = load(tmp_path / "sets"), evaluation_set(task, ("test", "heldout_unpermuted"), 11)
    assert loaded.task == task
    assert loaded.digest == drawn.digest
    assert list(loaded.problems) == ["test", "heldout_unpermuted"]
    assert len({loaded, drawn}) == 2, "sets are told apart as objects, and compared by their digests"
    for split, batch in drawn.problems.items():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded.problems[split], batch, strict=True))
    files = {path.name: path.read_bytes() for path in (tmp_path / "sets").iterdir()}
    assert files["sraven.safetensors.sha256"].decode() == f"{digest}  sraven.safetensors\n"
    assert set(files) == {"sraven.safetensors", "sraven.safetensors.sha256"}
    assert export(tmp_path / "again", task, ("test", "heldout_unpermuted"), 11) == digest


def test_an_exported_problem_takes_few_bytes(tmp_path: Path) -> None:
    export(tmp_path, problems=100)
    # 36 symbols, 4 rules and 12 positions, in two splits, and a header.
    assert (tmp_path / "sraven.safetensors").stat().st_size < 2 * 100 * 52 + 1000


@pytest.mark.parametrize("name", ["sraven.safetensors", "sraven.safetensors.sha256"])
def test_damaged_and_missing_files_are_named(name: str, tmp_path: Path) -> None:
    export(tmp_path, problems=3)
    content = bytearray((tmp_path / name).read_bytes())
    content[10] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"sraven.safetensors is not what sraven.safetensors.sha256 says"):
        load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"cannot be read \(.*{name}.*\): export it again"):
        load(tmp_path)


def _panels(tensors: dict[str, torch.Tensor], value: int) -> None:
    tensors["test/panels"][0, 0, 0, 0] = value


CHANGES: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "test/panels is not (3, 3, 3, 4) of unsigned bytes below 8": lambda t: _panels(t, 8),
    "test/rules is not (3, 4) of unsigned bytes below 8": lambda t: t["test/rules"].fill_(77),
    "heldout/permutations holds a row that is no permutation": lambda t: t["heldout/permutations"].fill_(1),
    "heldout/rules is not (3, 4)": lambda t: t.update({"heldout/rules": t["heldout/rules"][:2].clone()}),
    "test/rules is not": lambda t: t.update({"test/rules": t["test/rules"].float()}),
    "KeyError('test/rules')": lambda t: t.pop("test/rules"),
    "unknown split 'ood'": lambda t: t.update({"ood/rules": t["test/rules"].clone()}),
}


@pytest.mark.parametrize("message", CHANGES)
def test_another_content_with_a_right_digest_is_named(message: str, tmp_path: Path) -> None:
    export(tmp_path, problems=3)
    path = tmp_path / "sraven.safetensors"
    tensors = safetensors.torch.load_file(path)
    CHANGES[message](tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata={"task": json.dumps(asdict(SRaven()))}))
    _sign(path)
    with pytest.raises(DataError, match=rf"holds no evaluation set \(.*{re.escape(message)}.*\): export it again"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x02\0\0\0\0\0\0\0{}", b"some other file"])
def test_other_files_with_a_right_digest_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sraven.safetensors"
    path.write_bytes(content)
    _sign(path)
    with pytest.raises(DataError, match=r"sraven.safetensors holds no evaluation set"):
        load(tmp_path)


def _sign(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problems": 0}, r"problems=0 is no number of problems: use 1 or more"),
        ({"splits": ()}, r"splits=\(\) is no list of splits: use some of train, test"),
        ({"splits": ("tset",)}, r"unknown split 'tset': did you mean 'test'\?"),
        ({"splits": ("test", "train")}, r"split='train' is what models are trained on: use 'test'"),
    ],
)
def test_sets_that_make_no_sense_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        evaluation_set(**arguments)
    with pytest.raises(ValueError, match=message):
        export(tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


# --- score ----------------------------------------------------------------------------------------------------


def test_a_problem_counts_when_all_its_symbols_are_right(small: EvaluationSet) -> None:
    targets = {split: batch.targets.clone() for split, batch in small.problems.items()}
    assert score(targets, small) == {"test": 1.0, "heldout": 1.0}
    targets["test"][2, 3] = (targets["test"][2, 3] + 1) % 8
    targets["test"][4] = (targets["test"][4] + 1) % 8
    assert score({"test": targets["test"]}, small) == {"test": 5 / 7}


def test_arrays_and_lists_count_as_well(small: EvaluationSet) -> None:
    targets = small.problems["heldout"].targets
    for given in (targets.numpy(), targets.tolist(), targets.to(torch.uint8), targets.numpy().astype(np.int16)):
        assert score({"heldout": given}, small) == {"heldout": 1.0}


def test_the_score_of_the_published_set_needs_no_file() -> None:
    """The first half is right; of the others, four symbols out of eight each, guesses are with probability 1/4096."""
    guesses = torch.zeros(10_000, 4, dtype=torch.long)
    for step in range(10):
        guesses[500 * step : 500 * step + 500] = SRaven().batch("test", step, 500).targets
    assert score({"test": guesses})["test"] == pytest.approx(0.5, abs=0.002)


def test_a_score_is_the_mean_of_the_tasks_own(small: EvaluationSet) -> None:
    batch, outputs = small.problems["test"], torch.randn(7, 4, 8, generator=torch.Generator().manual_seed(0))
    outputs[:3] += 9 * torch.nn.functional.one_hot(batch.targets[:3], 8)
    assert score({"test": outputs.argmax(-1)}, small)["test"] == pytest.approx(
        small.task.score(outputs, batch).mean().item()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            torch.zeros(7, 4),
            r"predictions\['test'\] has dtype torch.float32: give whole numbers from 0 to 7; of logits",
        ),
        (torch.zeros(7, 4, dtype=torch.bool), r"has dtype torch.bool: give whole numbers"),
        (torch.zeros(7, 4, 8), r"has dtype torch.float32"),
        (torch.zeros(7, 3, dtype=torch.long), r"has shape \(7, 3\): this evaluation set needs \(7, 4\)"),
        (torch.zeros(6, 4, dtype=torch.long), r"has shape \(6, 4\): this evaluation set needs \(7, 4\)"),
        (torch.zeros(28, dtype=torch.long), r"has shape \(28,\): this evaluation set needs \(7, 4\)"),
        (torch.full((7, 4), 8), r"holds 8 at problem 0, symbol 0: use 0 to 7 \(28 are out of range\)"),
        (torch.tensor([[0] * 4] * 6 + [[0, 0, -1, 0]]), r"holds -1 at problem 6, symbol 2: use 0 to 7 \(1 are"),
        ([[0, 1], [2]], r"predictions\['test'\] is no array of whole numbers"),
        ("0123", r"predictions\['test'\] is no array of whole numbers"),
        (None, r"predictions\['test'\] is no array of whole numbers"),
    ],
)
def test_predictions_that_cannot_be_scored_are_named(given: object, message: str, small: EvaluationSet) -> None:
    with pytest.raises(ValueError, match=message):
        score({"test": given}, small)


def test_predictions_without_a_known_split_are_named(small: EvaluationSet) -> None:
    with pytest.raises(ValueError, match=r"unknown split 'ood': allowed are test, heldout"):
        score({"ood": torch.zeros(7, 4, dtype=torch.long)}, small)
    with pytest.raises(
        ValueError, match=r"predictions of type dict hold no split: give a mapping from test or heldout"
    ):
        score({}, small)


# --- problems to look at --------------------------------------------------------------------------------------


def test_a_problem_as_text() -> None:
    task = SRaven()
    batch = task.batch("heldout", 0, 2)
    assert render(task, batch).splitlines() == [
        "(3 5 5 0)   (5 1 4 5)   (4 7 1 5)",
        "(7 3 7 4)   (3 1 0 1)   (6 3 3 7)",
        "(3 4 0 7)   (5 1 7 5)   (? ? ? ?)",
        "",
        "answer (7 7 3 4)",
        "plus_2            at 1 4 2:  3 5 7 | 7 1 3 | 3 5 7",
        "addition          at 2 3 3:  5 4 1 | 3 0 3 | 4 7 3",
        "addition          at 4 1 4:  0 5 5 | 4 3 7 | 7 5 4",
        "difference        at 3 2 1:  5 1 4 | 7 1 6 | 0 1 7",
    ]
    hidden = render(task, batch, solution=False)
    assert render(task, batch).startswith(hidden)
    assert not any(name in hidden for name in RULES)


def test_many_values_are_numbers_in_columns() -> None:
    task = SRaven(n_features=2, n_values=100)
    lines = render(task, task.batch("test", 0, 1), solution=False).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].endswith("( ?  ?)")


@pytest.mark.parametrize("solution", [True, False])
def test_a_problem_as_a_drawing(solution: bool) -> None:
    plt.switch_backend("agg")
    task = SRaven()
    batch = task.batch("heldout", 0, 2)
    figure = sraven_problem(task, batch, 1, solution)
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    shown = task.panels(batch)[1].flatten(0, 1).tolist()
    for panel, text in zip(shown[: 9 if solution else 8], texts, strict=False):
        assert [t for t in text if t.isdigit()] == [str(symbol) for symbol in panel]
    assert texts[-1] == ["?"] * 4 if not solution else "?" not in texts[-1]
    drawn = "".join(text for panel in texts for text in panel)
    assert all((letter in drawn) is solution for letter in "ABCD")
    plt.close(figure)


def test_batches_of_another_task_are_refused() -> None:
    batch = SRaven().batch("test", 0, 2)
    for call in (render, sraven_problem):
        with pytest.raises(ValueError, match=r"batch.inputs has shape \(2, 36, 8\): this task needs \(2, 27, 8\)"):
            call(SRaven(n_features=3), batch)


@pytest.mark.parametrize("index", [-1, 2])
def test_problems_outside_the_batch_are_refused(index: int) -> None:
    task = SRaven()
    for call in (render, sraven_problem):
        with pytest.raises(
            ValueError, match=rf"index={index} is out of range: use 0 to 1; it is a problem of the batch"
        ):
            call(task, task.batch("test", 0, 2), index)


def test_score_by_symbol_counts_each_symbol(small: EvaluationSet) -> None:
    targets = small.problems["test"].targets
    wrong = targets.clone()
    wrong[0, 0] = (wrong[0, 0] + 1) % small.task.n_values
    assert score({"test": wrong}, small)["test"] == pytest.approx(6 / 7)
    assert score({"test": wrong}, small, by="symbol")["test"] == pytest.approx(1 - 1 / targets.numel())
    with pytest.raises(ValueError, match="unknown by 'symbols': did you mean 'symbol'"):
        score({"test": wrong}, small, by="symbols")
