"""Any module beside our rows: the public call, its interruption, names, the leaderboard and its page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import hyla_repro
from hyla_repro.book import report
from hyla_repro.errors import DivergedError
from hyla_repro.files import seal
from hyla_repro.ledger.runs import Ledger
from hyla_repro.models import Transformer
from hyla_repro.results.methods import NAMES
from hyla_repro.results.store import Store
from hyla_repro.studies.fuzzy_logic.runs import fuzzy_logic
from hyla_repro.studies.mixers import GUESTS, ModelSpec, leaderboard
from hyla_repro.studies.mixers.benchmarking import _spec, enter
from hyla_repro.studies.mixers.rows import beside, cell, in_words, ours, ranked
from hyla_repro.training import loop
from hyla_repro.training.foreign import ForeignStack
from hyla_repro.training.loop import train


class MyGRU(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.n_read = spec.n_read
        self.gru = nn.GRU(spec.n_inputs, 8, batch_first=True)
        self.out = nn.Linear(8, spec.n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x)[0][:, -self.n_read :])


def call(ledger: Ledger, make_model: Any = MyGRU, **changes: Any) -> Any:
    settings = {"tasks": ("fuzzy_logic",), "preset": "smoke", "name": "my-gru", "ledger": ledger, "progress": False}
    return hyla_repro.benchmark(make_model, **settings | changes)


# --- the call -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_gru_gets_its_row_in_both_tasks(ledger: Ledger, tmp_path: Path) -> None:
    result = call(ledger, tasks=("fuzzy_logic", "sraven"))
    assert result.left == ()
    assert list(result.runs["task"]) == ["fuzzy_logic", "sraven"]
    for task in ("fuzzy_logic", "sraven"):
        row = result.table.loc[task].set_index("model").loc["my-gru"]
        assert row["heldout"] == pytest.approx(100 * result.runs.set_index("task")["heldout"][task])
        assert row["seeds"] == 1
    assert len(result.plot().axes) == 2
    again = call(ledger, tasks=("fuzzy_logic", "sraven"))
    pd.testing.assert_frame_equal(again.runs, result.runs)
    with pytest.raises(ValueError, match="preset smoke"):
        leaderboard.add(result.save(tmp_path / "result.json"), Store(tmp_path / "data"))


def test_steps_batches_and_optimiser_are_those_of_our_run() -> None:
    ours, entry = cell("sraven", "laptop", 1), enter("sraven", "laptop", 1, "x", n_parameters=1, shapes="", source="",
                                                     build=object)  # fmt: skip
    fields = {"task_name", "task", "steps", "batch_size", "learning_rate", "weight_decay", "warmup_steps", "seed",
              "evaluation_sequences", "precision", "semantics"}  # fmt: skip
    assert {name: getattr(ours, name) for name in fields} == {name: getattr(entry, name) for name in fields}
    spec = _spec("sraven", "laptop", 1)
    assert (spec.n_inputs, spec.n_outputs, spec.n_tokens, spec.n_read, spec.causal) == (8, 8, 18, 2, False)


@pytest.mark.slow
def test_our_softmax_transformer_handed_in_scores_as_our_engine_scores_it(ledger: Ledger) -> None:
    """With the same first weights; our rows also have attention dropout, which no module of others is given."""
    run = fuzzy_logic("smoke", "softmax", 0, attention_dropout=0.0)

    class Handed(nn.Module):
        def __init__(self, spec: ModelSpec) -> None:
            super().__init__()
            self.n_read, self.model = spec.n_read, Transformer(run.model).initialize(spec.seed)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x, last=self.n_read)

    result = call(ledger, Handed, name="handed-in")
    train([run], ledger, progress=False)
    scores = ledger.result(run)["scores"]
    assert result.runs.iloc[0][list(scores)].to_dict() == pytest.approx(scores, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_interrupted_and_called_again_it_ends_as_if_never_stopped(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call(Ledger(tmp_path / "whole")).runs
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        advance = loop._Training.advance

        def dying(training: Any) -> None:
            advance(training)
            if training.step == 25:
                raise RuntimeError("power cut")

        patched.setattr(loop._Training, "advance", dying)
        with pytest.raises(RuntimeError, match="power cut"):
            call(ledger)
    entry = enter("fuzzy_logic", "smoke", 0, "my-gru", n_parameters=1, shapes="", source="", build=object)
    assert ledger.state(entry) == "paused"
    steps = []
    original = ForeignStack.advance
    monkeypatch.setattr(ForeignStack, "advance", lambda stack: steps.append(stack.step) or original(stack))
    resumed = call(ledger).runs
    assert min(step for step in steps if step > 3) == 24
    pd.testing.assert_frame_equal(resumed.drop(columns="minutes"), whole.drop(columns="minutes"))


def test_a_budget_that_is_used_up_leaves_runs_and_nothing_to_save(ledger: Ledger, tmp_path: Path) -> None:
    result = call(ledger, budget="0s")
    assert len(result.left) == 1
    assert result.runs.empty
    assert "my-gru" not in set(result.table["model"])
    assert result.plot().axes
    with pytest.raises(ValueError, match="1 runs are not finished, such as my-gru"):
        result.save(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ("fuzzy",)}, "unknown task of the benchmark 'fuzzy': did you mean 'fuzzy_logic'"),
        ({"tasks": ()}, "give a tuple of at least one"),
        ({"tasks": "sraven"}, "give a tuple of at least one"),
        ({"preset": "labtop"}, "unknown preset 'labtop': did you mean 'laptop'"),
        ({"seeds": (0, -1)}, "seed=-1 is out of range"),
        ({"seeds": ()}, "give a tuple of at least one"),
        ({"budget": "soon"}, "budget='soon' is not a time"),
        ({"name": "HYLA"}, "name='HYLA' is one of our rows"),
        ({"name": "my gru"}, "name"),
    ],
)
def test_bad_words_are_refused_before_training(ledger: Ledger, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(ledger, **changes)
    assert not ledger.root.exists()


@pytest.mark.slow
def test_a_changed_model_needs_another_name(ledger: Ledger) -> None:
    call(ledger)

    class Changed(MyGRU):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(ValueError, match="name='my-gru' are of another model: its source code differed"):
        call(ledger, Changed)
    assert call(ledger, Changed, name="my-doubled-gru").left == ()


def test_a_model_that_diverges_is_named_and_stays_out(ledger: Ledger) -> None:
    class Diverging(MyGRU):
        """Finite in the first steps, so that only training finds out."""

        def __init__(self, spec: ModelSpec) -> None:
            super().__init__(spec)
            self.register_buffer("steps", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.steps += self.training
            return super().forward(x) * torch.where(self.steps > 20, torch.inf, 1.0)

    with pytest.raises(DivergedError, match="my-gru"):
        call(ledger, Diverging)
    with pytest.raises(ValueError, match="diverged before: give the changed model another name, or delete"):
        call(ledger, Diverging)


@pytest.mark.parametrize("task", ["fuzzy_logic", "sraven"])
@pytest.mark.parametrize("name", GUESTS)
def test_guests_have_about_the_parameters_of_our_model(name: str, task: str) -> None:
    if name == "x-transformers":
        pytest.importorskip("x_transformers")
    spec = _spec(task, "laptop", 0)
    model = GUESTS[name](spec)
    reference = sum(p.numel() for p in Transformer(cell(task, "laptop", 0).model).parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(reference, rel=0.1)
    assert model(torch.zeros(2, spec.n_tokens, spec.n_inputs)).shape == (2, spec.n_read, spec.n_outputs)


# --- rows ---------------------------------------------------------------------------------------------------


def test_our_rows_are_the_committed_ones() -> None:
    store = Store(committed_only=True)
    found = ours("fuzzy_logic", "laptop", (0, 1, 2), store)
    committed = store.committed_runs()[cell("fuzzy_logic", "laptop", 1, "hyla").id]
    row = found[(found["name"] == "HYLA") & (found["seed"] == 1)].iloc[0]
    assert (row["heldout"], row["test"], row["n_parameters"]) == (committed["heldout"], committed["test"], 151_265)
    assert (found.groupby("name").size() == 3).all()


def test_ranks_means_and_intervals_by_hand() -> None:
    """Student's t with two degrees of freedom: 4.3027; means 50 and 40, standard errors of both 10 / sqrt(3)."""
    softmax = NAMES["softmax"]
    runs = pd.DataFrame(
        [(softmax, seed, score) for seed, score in enumerate((0.3, 0.4, 0.5))]
        + [("mine", seed, score) for seed, score in enumerate((0.4, 0.6, 0.5))],
        columns=["name", "seed", "heldout"],
    ).assign(test=0.9, n_parameters=7)
    table = ranked(runs).set_index("model")
    assert list(table["rank"]) == [1, 2]
    mine = table.loc["mine"]
    assert (mine["heldout"], mine["low"]) == pytest.approx((50, 50 - 4.302653 * 10 / 3**0.5))
    assert mine["lead"] == pytest.approx(10)
    assert pd.isna(table.loc[softmax, "lead"])
    words = in_words(ranked(runs))
    assert words.iloc[0, 2] == "50.0 (25.2 to 74.8)"
    assert words.iloc[1, 3] == ""


def test_seeds_that_others_lack_are_left_out() -> None:
    store, mine = Store(committed_only=True), {"name": "mine", "task": "fuzzy_logic", "preset": "laptop"}
    runs = pd.DataFrame([{**mine, "seed": s, "test": 1.0, "heldout": 1.0, "n_parameters": 1} for s in (0, 7)])
    table = beside(runs, "fuzzy_logic", "laptop", (0,), store).set_index("model")
    assert table.loc["mine", "rank"] == 1
    assert set(table["seeds"]) == {1}


# --- the leaderboard ----------------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path: Path) -> Store:
    """Committed results with an empty leaderboard."""
    store = Store(tmp_path / "data", committed_only=True)
    store.write({leaderboard.FILE: Store(committed_only=True).read(leaderboard.FILE)})
    return store


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write a file as `Benchmark.save` does, of runs at laptop that nobody trained."""

    def write(source: str = "abc", seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> Path:
        runs = []
        for seed in seeds:
            facts = {"n_parameters": 9, "shapes": "def", "source": source}
            entry = enter("sraven", "laptop", seed, "mine", build=object, **facts)
            row = {"id": entry.id, "name": "mine", "task": "sraven", "preset": "laptop", "seed": seed, "test": 0.9}
            runs.append({**row, "heldout": 0.7 + 0.1 * seed, **facts, "minutes": 1.0, **changes})
        path = tmp_path / "mine.json"
        path.write_bytes(seal({"name": "mine", "runs": runs}))
        return path

    return write


def test_a_saved_result_becomes_a_row_once(board: Store, saved: Callable[..., Path]) -> None:
    empty = leaderboard.section(board)
    assert "mine" not in empty
    assert leaderboard.add(saved(), board) == "added 3 runs of mine"
    assert leaderboard.add(saved(), board) == "nothing new: the runs of mine are on the leaderboard"
    assert board.verify() == 1
    assert "| 1 | **mine** | 80.0 (55.2 to 104.8) |" in leaderboard.section(board)
    assert (leaderboard.rows(board)["name"] == "mine").sum() == 3


def test_what_cannot_be_ranked_is_refused(board: Store, saved: Callable[..., Path]) -> None:
    leaderboard.add(saved(), board)
    with pytest.raises(ValueError, match="name='mine' is another model's on the leaderboard"):
        leaderboard.add(saved(source="other"), board)
    with pytest.raises(ValueError, match=r"lacks seeds \[2\] of sraven at laptop"):
        leaderboard.add(saved(seeds=(0, 1)), board)
    with pytest.raises(ValueError, match="runs of other settings"):
        leaderboard.add(saved(seed=5), board)
    path = saved()
    path.write_bytes(path.read_bytes().replace(b"0.7", b"0.9"))
    with pytest.raises(ValueError, match="no whole file of"):
        leaderboard.add(path, board)
    with pytest.raises(FileNotFoundError):
        leaderboard.add(path.with_name("none.json"), board)


def test_the_page_cites_what_it_does_not_rank() -> None:
    (text,) = report.leaderboard_page(Store(committed_only=True)).values()
    _, _, cited = text.partition("not ranked")
    assert "| Abduction Transformer | 1 % of rule combinations | 46.1 ± 4.2 |" in cited
    assert "Abduction" not in text.partition("not ranked")[0]
