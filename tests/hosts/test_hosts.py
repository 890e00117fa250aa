"""The page *Use it in your model*: its blocks run, and the models that they make do what they should."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from hyla_repro import HypernetworkAttention, KeyValueCache

Block = Callable[[str], dict[str, Any]]
hosts = pytest.mark.hosts
# Other packages' own warnings, at their import and while they trace.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def trains(model: nn.Module, call: Callable[[], torch.Tensor]) -> bool:
    """Tell whether ten steps lower a loss and every parameter of our attention has a gradient."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-3), []
    for _ in range(10):
        loss = (call() - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    ours = [module for module in model.modules() if isinstance(module, HypernetworkAttention)]
    return losses[-1] < losses[0] and all(p.grad is not None for module in ours for p in module.parameters())


def test_torch(block: Block) -> None:
    encoder = block("torch")["encoder"]
    x, padding = torch.randn(2, 10, 64), torch.zeros(2, 10).bool()
    padding[0, 7:] = True
    assert all(isinstance(layer.self_attn, HypernetworkAttention) for layer in encoder.layers)
    with torch.no_grad():
        packed = encoder.eval()(x, src_key_padding_mask=padding)
        alone = encoder(x[:1, :7])
    torch.testing.assert_close(packed[:1, :7], alone, rtol=0, atol=1e-5)
    assert trains(encoder, lambda: encoder.train()(x))


def test_function(block: Block) -> None:
    names = block("function")
    expected = nn.functional.scaled_dot_product_attention(
        names["query"], names["key"], names["value"], attn_mask=names["keep"]
    )
    torch.testing.assert_close(names["softmax"], expected)
    assert names["mixed"].shape == expected.shape


def test_nanogpt(block: Block) -> None:
    """A small GPT of such blocks generates the same with a cache and without."""
    attention = block("nanogpt")["CausalSelfAttention"]
    torch.manual_seed(0)
    embed, layers, read_out = nn.Embedding(16, 32), [attention(32, 4) for _ in range(2)], nn.Linear(32, 16)

    def logits(tokens: torch.Tensor, caches: list[KeyValueCache | None]) -> torch.Tensor:
        x = embed(tokens)
        for layer, cache in zip(layers, caches, strict=True):
            x = x + layer(nn.functional.layer_norm(x, (32,)), cache)
        return read_out(x)

    text, caches = torch.randint(16, (2, 4)), [KeyValueCache(), KeyValueCache()]
    cached, new = text, text
    for _ in range(8):
        text = torch.cat([text, logits(text, [None, None])[:, -1:].argmax(-1)], dim=1)
        new = logits(new, caches)[:, -1:].argmax(-1)
        cached = torch.cat([cached, new], dim=1)
    assert torch.equal(text, cached)
    assert len(caches[0]) == 11


# --- with other packages ---------------------------------------------------------------------------------------


@hosts
def test_timm(block: Block) -> None:
    model = block("timm")["model"]
    images = torch.randn(2, 3, 16, 16)
    assert model(images).shape == (2, 5)
    assert trains(model, lambda: model(images))


@hosts
def test_torchvision() -> None:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(16, 4, 2, 4, 32, 64, num_classes=5)
    for layer in model.encoder.layers:
        layer.self_attention = HypernetworkAttention.like(layer.self_attention)
    assert trains(model, lambda: model(torch.ones(2, 3, 16, 16)))


@hosts
def test_x_transformers() -> None:
    from x_transformers import Encoder

    class Attention(HypernetworkAttention):
        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, **_: Any) -> tuple[torch.Tensor, None]:
            removed = None if mask is None else ~mask
            return super().forward(x, x, x, key_padding_mask=removed, need_weights=False)[0], None

    encoder = Encoder(dim=32, depth=2, heads=4)
    for layer in encoder.layers[::2]:
        layer[1] = Attention(32, 4)
    x, mask = torch.randn(2, 6, 32), torch.ones(2, 6).bool()
    mask[0, 4:] = False
    changed = torch.where(mask.unsqueeze(-1), x, 3.0)
    torch.testing.assert_close(encoder(x, mask=mask)[mask], encoder(changed, mask=mask)[mask], rtol=0, atol=1e-5)


@pytest.fixture
def gpt2(block: Block) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    block("hugging face")
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64, attn_implementation="hyla",
                        bos_token_id=0, eos_token_id=None)  # fmt: skip
    return GPT2LMHeadModel(config).eval()


@hosts
def test_gpt2_generates_the_same_with_and_without_cache(gpt2: Any) -> None:
    text = torch.randint(1, 64, (2, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    cached, uncached = (gpt2.generate(text, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, uncached)


@hosts
def test_gpt2_never_looks_ahead_and_trains(gpt2: Any) -> None:
    text = torch.randint(1, 64, (2, 5), generator=torch.Generator().manual_seed(0))
    other = text.clone()
    other[:, -1] = 63 - other[:, -1]
    torch.testing.assert_close(gpt2(text).logits[:, :-1], gpt2(other).logits[:, :-1], rtol=0, atol=0)
    gpt2.train()(text, labels=text).loss.backward()
    assert all(p.grad.isfinite().all() for p in gpt2.parameters())


@hosts
def test_bert_ignores_padding(block: Block) -> None:
    from transformers import BertConfig, BertModel

    block("hugging face")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    bert = BertModel(BertConfig(vocab_size=64, attn_implementation="hyla", **sizes)).eval()
    text, mask = torch.randint(1, 64, (2, 5)), torch.ones(2, 5, dtype=torch.long)
    mask[0, 3:] = 0
    padded, alone = bert(text, attention_mask=mask), bert(text[:1, :3])
    torch.testing.assert_close(padded.last_hidden_state[:1, :3], alone.last_hidden_state, rtol=0, atol=1e-5)


@hosts
def test_a_module_continues_the_cache_of_hugging_face() -> None:
    from transformers import DynamicCache

    module, x, cache = HypernetworkAttention(32, 4), torch.randn(2, 5, 32), DynamicCache()
    steps = [module(t, t, t, is_causal=True, cache=partial(cache.update, layer_idx=0))[0] for t in x.split(1, dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), module(x, x, x, is_causal=True)[0], rtol=0, atol=1e-5)


ONNX = """
import io, onnxruntime
from hyla_repro import VARIANTS
for variant in VARIANTS:
    layer.attention = HypernetworkAttention(32, 4, variant=variant)
    program = torch.export.export(layer, (x,), dynamic_shapes=(sizes,))
    file = io.BytesIO()
    torch.onnx.export(program, dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    for shape in ((3, 11, 32), (5, 2, 32), (2, 37, 32)):
        tokens = torch.randn(shape)
        expected = layer(tokens).detach()
        (output,) = session.run(None, {session.get_inputs()[0].name: tokens.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(program.module()(tokens), expected, rtol=0, atol=1e-5)
print("every length")
"""


@hosts
def test_exported_and_onnx_programs_serve_every_length(alone: Callable[[str, str], str]) -> None:
    assert alone("export", ONNX) == "every length"
