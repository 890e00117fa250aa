"""Train a borrowed model, torch's encoder with its attention exchanged: what the size of HYLA's outputs does to it.

Two layers of width 32 with 4 heads read 16 random symbols of 8 twice and predict the second time (chance: 2.08 nats).
The encoder, its normalisation before each part and AdamW with a warm-up of 50 steps stay as a softmax model has them.
Output sizes at initialisation are of one layer and normal inputs.

    python benchmarks/key_reduction.py --out key_reduction.csv
"""

from itertools import product
from pathlib import Path

import pandas as pd
import torch
import typer
from conclude import conclude
from torch import Tensor, nn
from torch.nn import functional as F

from hyla_repro.attention import HypernetworkAttention

METHODS = {
    "softmax": {"variant": "softmax"},
    "HYLA, sum": {},
    "HYLA, root": {"key_reduction": "root"},
    "HYLA, mean": {"key_reduction": "mean"},
}
_SYMBOLS, _HALF, _WIDTH, _HEADS, _BATCH = 8, 16, 32, 4, 16


class Borrowed(nn.Module):
    """A causal model around torch's own encoder, its attention exchanged after building."""

    def __init__(self, **options: str) -> None:
        super().__init__()
        self.symbols = nn.Embedding(_SYMBOLS, _WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(2 * _HALF - 1, _WIDTH))
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 4 * _WIDTH, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(_WIDTH), enable_nested_tensor=False)
        for block in self.encoder.layers:
            block.self_attn = HypernetworkAttention.like(block.self_attn, **options)
        self.read_out = nn.Linear(_WIDTH, _SYMBOLS)
        self.register_buffer("future", torch.ones(2 * _HALF - 1, 2 * _HALF - 1, dtype=torch.bool).triu(1))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.symbols(tokens) + self.positions
        return self.read_out(self.encoder(x, mask=self.future, is_causal=True))


def loss_of(model: Borrowed, generator: torch.Generator, device: str) -> Tensor:
    """Return the mean cross-entropy of the second half of a batch, in nats per symbol."""
    half = torch.randint(_SYMBOLS, (_BATCH, _HALF), generator=generator)
    text = torch.cat([half, half], dim=1).to(device)
    logits = model(text[:, :-1])[:, _HALF - 1 :]
    return F.cross_entropy(logits.flatten(0, 1), text[:, _HALF:].flatten())


def train(method: str, rate: float, seed: int, steps: int, device: str) -> dict[str, str | float]:
    """Return the losses of a run, the mean of its last 20 steps in `loss`."""
    torch.manual_seed(seed)
    model = Borrowed(**METHODS[method]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    generator, losses = torch.Generator().manual_seed(1000 + seed), []
    for _ in range(steps):
        loss = loss_of(model, generator, device)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm_up.step()
        losses.append(float(loss.detach()))
    quarter = steps // 4
    return {
        "kind": "training", "method": method, "rate": rate, "seed": seed, "steps": steps,
        "quarter": sum(losses[quarter - 20 : quarter]) / 20, "loss": sum(losses[-20:]) / 20,
    }  # fmt: skip


@torch.no_grad()
def size(method: str, tokens: int, seed: int) -> dict[str, str | float]:
    """Return the standard deviation of one layer's outputs at initialisation."""
    torch.manual_seed(seed)
    layer, x = HypernetworkAttention(_WIDTH, _HEADS, **METHODS[method]), torch.randn(1, tokens, _WIDTH)
    return {"kind": "size", "method": method, "tokens": tokens, "seed": seed, "std": float(layer(x, x, x)[0].std())}


def main(steps: int = 800, seeds: int = 3, device: str = "cpu", out: Path | None = None) -> None:
    """Measure output sizes and train every method at three learning rates."""
    torch.set_num_threads(1)
    rows = [size(*point) for point in product(METHODS, (16, 256, 1024), range(seeds))]
    for method, rate, seed in product(METHODS, (3e-4, 1e-3, 3e-3), range(seeds)):
        rows.append(train(method, rate, seed, steps, device))
        print(rows[-1], flush=True)
    conclude(pd.DataFrame(rows), device, out)


if __name__ == "__main__":
    typer.run(main)
