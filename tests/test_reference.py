"""Parity with the authors' release, number by number (tests/golden/README.md says how they were recorded)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hyla_repro.reference import load_release, release_config, to_state_dict

GOLDEN = Path(__file__).parent / "golden"
ENTRIES = json.loads((GOLDEN / "index.json").read_text())
# float32 sums in another order: the recorder's own repetition differed by up to 2e-5 of the largest value.
TOLERANCE = 2e-5


def load(entry: dict) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / entry["file"]) as archive:
        return dict(archive)


def assert_close(ours: torch.Tensor, theirs: np.ndarray, name: str, floor: float = 0.0) -> None:
    largest = max(float(np.abs(theirs).max()), floor)
    worst = float(np.abs(ours.detach().numpy() - theirs).max())
    assert worst <= TOLERANCE * largest, f"{name}: {worst:.2e} of largest {largest:.2e}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"].removesuffix(".npz"))
def test_release_parity(entry: dict) -> None:
    arrays = load(entry)
    model = load_release(arrays, entry)
    outputs, codes = model(torch.from_numpy(arrays["x"]), return_codes=True)
    assert_close(outputs, arrays["logits"], "outputs")
    for layer, code in enumerate(codes):
        assert_close(code, arrays[f"latent_code:transformer_block_{layer}"], f"code of layer {layer}")

    (outputs * torch.from_numpy(arrays["cotangent"])).sum().backward()
    gradients = {path: array for path, array in arrays.items() if path.startswith("grad:")}
    expected = to_state_dict(gradients, entry)
    assert set(expected) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        # Key biases have no gradient under softmax up to rounding; packed with the others they need no floor.
        assert_close(parameter.grad, expected[name].numpy(), f"gradient of {name}", floor=1e-3)


def test_reading_the_last_token_changes_nothing() -> None:
    entry = next(entry for entry in ENTRIES if entry["sequence_mixer"] == "linear_hypatt")
    arrays = load(entry)
    model = load_release(arrays, entry)
    x = torch.from_numpy(arrays["x"])
    full, codes = model(x, return_codes=True)
    last, last_codes = model(x, return_codes=True, last=2)
    torch.testing.assert_close(last, full[:, -2:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last_codes[-1], codes[-1][:, :, -2:], rtol=1e-5, atol=1e-6)


def test_missing_parameter_is_named() -> None:
    arrays = load(ENTRIES[0])
    del arrays["param:decoder_norm/scale"]
    with pytest.raises(ValueError, match="'decoder_norm/scale' is missing"):
        load_release(arrays, ENTRIES[0])


def test_unknown_mixer_is_named() -> None:
    with pytest.raises(ValueError, match="unknown sequence_mixer 'swiglu_hypatt'.*allowed are softmax_attention"):
        release_config(ENTRIES[0] | {"sequence_mixer": "swiglu_hypatt"}, 5)
