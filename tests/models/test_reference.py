"""Parity with the authors' release, number by number (tests/golden/README.md says how they were recorded)."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hyla_repro.reference import load_release, release_config, to_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
ENTRIES = json.loads((GOLDEN / "index.json").read_text())
NAMES = [entry["file"].removesuffix(".npz") for entry in ENTRIES]
# float32 sums in another order: the recorder's own repetition differed by up to 2e-5 of the largest value.
TOLERANCE = 2e-5


def load(entry: dict) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / entry["file"]) as archive:
        return dict(archive)


def assert_close(ours: torch.Tensor | np.ndarray, theirs: np.ndarray, name: str, scale: float | None = None) -> None:
    """Compare within TOLERANCE of scale, the array's own largest value if None."""
    largest = float(np.abs(theirs).max()) if scale is None else scale
    worst = float(np.abs(np.asarray(ours) - theirs).max())
    assert worst <= TOLERANCE * largest, f"{name}: {worst:.2e} of largest {largest:.2e}"


def release_arrays(state: dict[str, torch.Tensor], entry: dict) -> Iterator[tuple[str, np.ndarray]]:
    """Split the packed query, key and value projections into the release's own arrays, each with its own scale."""
    rows = [entry["qk_dim"], entry["qk_dim"], entry["v_dim"]]
    for name, tensor in state.items():
        if "in_proj" in name:
            parts = tensor.detach().split(rows)
            for kind, part in zip(("query", "key", "value"), parts, strict=True):
                yield name.replace("in_proj", kind), part.numpy()
        else:
            yield name, tensor.detach().numpy()


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_outputs_and_codes(entry: dict) -> None:
    arrays = load(entry)
    model = load_release(arrays, entry)
    with torch.no_grad():
        outputs, codes = model(torch.from_numpy(arrays["x"]), return_codes=True)
    assert_close(outputs, arrays["logits"], "outputs")
    assert len(codes) == entry["num_layers"]
    for layer, code in enumerate(codes):
        assert_close(code, arrays[f"latent_code:transformer_block_{layer}"], f"code of layer {layer}")


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_gradients_of_every_array(entry: dict) -> None:
    arrays = load(entry)
    model = load_release(arrays, entry)
    outputs = model(torch.from_numpy(arrays["x"]))
    (outputs * torch.from_numpy(arrays["cotangent"])).sum().backward()
    recorded = to_state_dict({path: array for path, array in arrays.items() if path.startswith("grad:")}, entry)
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(recorded) == set(ours)
    expected, actual = dict(release_arrays(recorded, entry)), dict(release_arrays(ours, entry))
    n_recorded = sum(path.startswith("grad:") for path in arrays)
    assert len(expected) == n_recorded
    for name, array in expected.items():
        scale = None
        if name.endswith("attention.key_bias") and entry["sequence_mixer"].startswith("softmax"):
            # A key bias shifts all scores of a query alike, which softmax ignores: its gradient is rounding alone,
            # in both implementations. Its floor is the gradient of the query bias of the same layer.
            scale = float(np.abs(expected[name.replace("key_bias", "query_bias")]).max())
            assert np.abs(array).max() <= TOLERANCE * scale
        assert_close(actual[name], array, f"gradient of {name}", scale)


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_reading_the_last_tokens_changes_nothing(entry: dict) -> None:
    arrays = load(entry)
    model = load_release(arrays, entry)
    with torch.no_grad():
        outputs, codes = model(torch.from_numpy(arrays["x"]), return_codes=True, last=2)
    assert_close(outputs, arrays["logits"][:, -2:], "outputs", float(np.abs(arrays["logits"]).max()))
    final = arrays[f"latent_code:transformer_block_{entry['num_layers'] - 1}"]
    assert_close(codes[-1], final[:, :, -2:], "code of the final layer", float(np.abs(final).max()))


def test_every_parameter_of_the_release_is_used() -> None:
    """An array that no name of ours came from would be a layer that we do not have."""
    for entry in ENTRIES:
        arrays = {path: array for path, array in load(entry).items() if path.startswith("param:")}
        state = to_state_dict(arrays, entry)
        assert sum(tensor.numel() for tensor in state.values()) == sum(array.size for array in arrays.values())


def test_missing_parameter_is_named() -> None:
    arrays = load(ENTRIES[0])
    del arrays["param:decoder_norm/scale"]
    with pytest.raises(ValueError, match="'decoder_norm/scale' is missing"):
        load_release(arrays, ENTRIES[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_mixer": "swiglu_hypatt"}, "unknown sequence_mixer 'swiglu_hypatt'.*allowed are softmax_attention"),
        ({"state_mixer": "gelu"}, "unknown state_mixer 'gelu': did you mean 'gelu_mlp'"),
        ({"norm": "rms"}, "only LayerNorm, unshared layers and relative positions"),
        ({"share_params_over_layers": True}, "only LayerNorm, unshared layers and relative positions"),
        ({"use_relative_position": False}, "only LayerNorm, unshared layers and relative positions"),
    ],
)
def test_configurations_that_cannot_be_loaded_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        release_config(ENTRIES[0] | change, 5)
