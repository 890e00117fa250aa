"""Layer dropping inside `transformers`: LLaMA beside the authors' arrays, Mistral and GPT-2 beside themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hyla_repro.studies.layer_drop import drop_curve, drop_order, dropped, importance

# Other packages' own warnings at their import.
pytestmark = [
    pytest.mark.hosts,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
         "vocab_size": 128, "eos_token_id": None}  # fmt: skip


def build(name: str) -> Any:
    import transformers

    torch.manual_seed(0)
    if name == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": 128}
        config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=None)
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.MistralConfig(num_hidden_layers=3, **SIZES)
    return transformers.MistralForCausalLM(config).eval()


@pytest.fixture
def arrays(golden: Path) -> dict[str, Tensor]:
    folder = golden / "related" / "llm_drop"
    files = [np.load(folder / f"{name}.npz") for name in ("scores", "logits", "weights_0", "weights_1")]
    return {key: torch.from_numpy(file[key]) for file in files for key in file}


@pytest.fixture
def llama(arrays: dict[str, Tensor]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=6, rms_norm_eps=1e-6, **SIZES)).eval()
    named = {name: arrays[name.removeprefix("model.")] for name in model.state_dict()}
    model.load_state_dict(named)
    return model


def test_llama_has_the_authors_scores_and_logits(llama: Any, arrays: dict[str, Tensor]) -> None:
    texts = [{"input_ids": row.long().unsqueeze(0)} for row in arrays["input_ids_calibration"]]
    for residual, suffix in ((True, "residual"), (False, "noresidual")):
        scores = importance(llama, texts, residual)
        for kind in ("attn", "mlp"):
            ours = torch.tensor([scores[kind, layer] for layer in range(6)], dtype=torch.float64)
            torch.testing.assert_close(ours, arrays[f"importance_{kind}_{suffix}"], rtol=0, atol=1e-5)
    with torch.no_grad(), dropped(llama, [("attn", 5), ("attn", 3), ("mlp", 5), ("mlp", 0), ("mlp", 4)]):
        logits = llama(arrays["input_ids_eval"].long()).logits
    torch.testing.assert_close(logits, arrays["logits_joint_first5"], rtol=0, atol=1e-4)


def test_llama_writes_what_the_authors_smaller_model_does(llama: Any, arrays: dict[str, Tensor]) -> None:
    """With its cache and without: attention that is dropped leaves the positions of others as they were."""
    expected = arrays["generate_joint_cache"].long()
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with dropped(llama, [("attn", 5), ("attn", 3), ("mlp", 5), ("mlp", 0), ("mlp", 4)]):
        for cached in (True, False):
            assert torch.equal(llama.generate(expected[:, :8], use_cache=cached, **options), expected)


@pytest.mark.parametrize("name", ["mistral", "gpt2"])
def test_other_decoders(name: str) -> None:
    model = build(name)
    text = torch.randint(128, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(text)
    mask[0, 6:] = 0
    batch = {"input_ids": text, "attention_mask": mask}
    scores = importance(model, [batch], token_mask=lambda batch: batch["attention_mask"].bool())
    assert len(scores) == 9
    assert scores != importance(model, [batch])
    other = batch | {"input_ids": torch.where(mask.bool(), text, 7)}
    again = importance(model, [other], token_mask=lambda batch: batch["attention_mask"].bool())
    assert all(abs(scores[module] - again[module]) < 1e-6 for module in scores)
    whole = model(text).logits
    curve = drop_curve(model, drop_order(scores), lambda network: network(text).logits)
    assert torch.equal(curve[0], whole)
    alone = (
        model.lm_head(model.transformer.ln_f(model.transformer.drop(embedded(model, text))))
        if name == "gpt2"
        else (model.lm_head(model.model.norm(model.model.embed_tokens(text))))
    )
    torch.testing.assert_close(curve[-1], alone, rtol=0, atol=1e-6)
    assert torch.equal(model(text).logits, whole)


def embedded(model: Any, text: Tensor) -> Tensor:
    return model.transformer.wte(text) + model.transformer.wpe(torch.arange(text.shape[1]))
