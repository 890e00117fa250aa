"""Layer dropping beside the authors' own functions: streams, scores, orders and logits of their tiny LLaMA."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llama import TinyLlama
from torch import Tensor

from hyla_repro.studies.layer_drop import drop_order, dropped, importance, iterative_drop, watching
from hyla_repro.studies.layer_drop.layers import Module
from hyla_repro.studies.layer_drop.scoring import cosine_distance

Arrays = dict[str, Tensor]


@pytest.fixture
def arrays(golden: Path) -> Arrays:
    names = ("scores", "streams", "logits", "iterative", "weights_0", "weights_1")
    files = [np.load(golden / "related" / "llm_drop" / f"{name}.npz") for name in names]
    return {key: torch.from_numpy(file[key]) for file in files for key in file}


@pytest.fixture
def llama(arrays: Arrays) -> TinyLlama:
    model = TinyLlama(128, 6, d_model=32, n_heads=4, n_groups=2, d_ff=64)
    model.load_state_dict({name: arrays[name] for name in model.state_dict()})
    return model.eval()


@pytest.fixture
def calibration(arrays: Arrays) -> list[Tensor]:
    return [row.long().unsqueeze(0) for row in arrays["input_ids_calibration"]]


def as_modules(order: Tensor, kind: str) -> list[Module]:
    """Return the modules of an order as the authors number them: in a joint one, MLPs after the six attentions."""
    numbers = order.long().tolist()
    return [("mlp", n - 6) if n >= 6 else (kind.replace("joint", "attn"), n) for n in numbers]


@pytest.mark.parametrize("residual", [True, False])
def test_scores_are_the_authors(llama: TinyLlama, calibration: list[Tensor], arrays: Arrays, residual: bool) -> None:
    scores = importance(llama, calibration, residual)
    kinds = ("attn", "mlp", "block") if residual else ("attn", "mlp")
    assert {kind for kind, _ in scores} == set(kinds)
    for kind in kinds:
        ours = torch.tensor([scores[kind, layer] for layer in range(6)], dtype=torch.float64)
        suffix = "" if kind == "block" else "_residual" if residual else "_noresidual"
        torch.testing.assert_close(ours, arrays[f"importance_{kind}{suffix}"], rtol=0, atol=1e-5)


def test_orders_are_the_authors(llama: TinyLlama, calibration: list[Tensor], arrays: Arrays) -> None:
    scores = importance(llama, calibration)
    for target in ("attn", "mlp", "block", "joint"):
        assert drop_order(scores, target) == as_modules(arrays[f"order_{target}"], target)
    bare = importance(llama, calibration, residual=False)
    for target in ("attn", "mlp"):
        assert drop_order(bare, target) == as_modules(arrays[f"order_{target}_noresidual"], target)


def test_streams_are_the_authors(llama: TinyLlama, calibration: list[Tensor], arrays: Arrays) -> None:
    seen: dict[Module, tuple[Tensor, Tensor]] = {}
    with torch.no_grad(), watching(llama, lambda module, x, y: seen.__setitem__(module, (x, y))):
        llama(torch.cat(calibration))
    for layer in range(6):
        for kind, before, after in (("attn", "attn", "attn"), ("mlp", "mlp", "mlp"), ("block", "attn", "mlp")):
            expected = arrays[f"X_{before}"][layer], arrays[f"Y_{after}"][layer]
            for ours, theirs in zip(seen[kind, layer], expected, strict=True):
                torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=0, atol=1e-4)


def test_scores_follow_from_the_authors_streams(arrays: Arrays) -> None:
    for kind in ("attn", "mlp"):
        ours = cosine_distance(arrays[f"X_{kind}"], arrays[f"Y_{kind}"]).double().mean(-1)
        torch.testing.assert_close(ours, arrays[f"importance_{kind}_residual"], rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    "name", ["none", "attn_first3", "mlp_first3", "block_first2", "joint_first5", "attn_all", "everything"]
)
def test_logits_are_those_of_the_authors_smaller_models(
    llama: TinyLlama, arrays: Arrays, golden: Path, name: str
) -> None:
    sets = json.loads((golden / "related" / "llm_drop" / "index.json").read_text())["sets"]
    modules = [(kind, layer) for kind, layers in sets.get(name, {}).items() for layer in layers]
    with torch.no_grad(), dropped(llama, modules):
        torch.testing.assert_close(llama(arrays["input_ids_eval"].long()), arrays[f"logits_{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("target", ["attn", "mlp"])
def test_iterative_orders(llama: TinyLlama, calibration: list[Tensor], arrays: Arrays, target: str) -> None:
    order = iterative_drop(llama, 4, calibration, target)
    assert order == as_modules(6 * (target == "mlp") + arrays[f"iterative_{target}_order"], target)


@pytest.mark.parametrize("kind", ["attn", "mlp"])
def test_later_scores_are_those_of_the_smaller_network(
    llama: TinyLlama, calibration: list[Tensor], arrays: Arrays, kind: str
) -> None:
    """The authors' later scores leave the other half of a layer out where one was dropped; ours do not."""
    order = [(kind, int(layer)) for layer in arrays[f"iterative_{kind}_order"]]
    for n in range(4):
        left = [layer for layer in range(6) if (kind, layer) not in order[:n]]
        similar = {}
        for what, modules in (("ours", order[:n]), ("theirs", [("block", layer) for _, layer in order[:n]])):
            with dropped(llama, modules):
                scores = importance(llama, calibration)
            similar[what] = torch.tensor([1 - scores[kind, layer] for layer in left], dtype=torch.float64)
        theirs = arrays[f"iterative_{kind}_similarity"][n, left]
        torch.testing.assert_close(similar["theirs"], theirs, rtol=0, atol=1e-5)
        if kind == "attn":
            torch.testing.assert_close(similar["ours"], arrays["TRUE_similarity_attn"][n, left], rtol=0, atol=1e-5)
    # Without the MLPs of layers 5, 0 and 4, by what happens to attention there.
    assert ((similar["ours"] - similar["theirs"]).abs().max() > 0.1) == (kind == "mlp")


def test_the_fault_changes_the_joint_order(llama: TinyLlama, calibration: list[Tensor], arrays: Arrays) -> None:
    theirs = as_modules(arrays["iterative_joint_order"], "joint")
    ours = iterative_drop(llama, 4, calibration)
    assert ours[:3] == theirs[:3] == [("attn", 5), ("mlp", 5), ("mlp", 0)]
    assert (ours[3], theirs[3]) == (("mlp", 4), ("attn", 3))


def test_consecutive_mode_of_the_authors_reads_one_layer_too_far(llama: TinyLlama, arrays: Arrays) -> None:
    """Column n of the table is a gap of n + 1, so that two blocks are chosen by what three would change."""
    into = torch.stack([*arrays["X_attn"], arrays["Y_mlp"][-1]])
    gap = torch.stack([1 - cosine_distance(into[i], into[i + 3]).double().mean() for i in range(4)])
    theirs = arrays["similarity_consecutive"][:4, 2].double()
    torch.testing.assert_close(gap, theirs, rtol=0, atol=1e-5)
    start = int(theirs.argmax())
    assert arrays["consecutive_blocks_n2"].long().tolist() == [start, start + 1]
