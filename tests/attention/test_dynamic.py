"""Programs made of the module by torch.compile and torch.export serve every length, forward and backward.

They are made in a process of their own: run-time type checks, which the tests may switch on, break graphs.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMON = """
import torch, warnings
from torch._dynamo.testing import CompileCounterWithBackend
from hyla_repro import VARIANTS, HypernetworkAttention
torch.set_num_threads(1)
warnings.simplefilter("ignore")  # of torch's own packages, while they trace

class Padded(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.attention = HypernetworkAttention(24, 4, **options)
    def forward(self, x, hidden):
        return self.attention(x, x, x, key_padding_mask=hidden, is_causal=True)[0]

def inputs(batch, length):
    hidden = torch.zeros(batch, length, dtype=torch.bool)
    hidden[0, -1] = True
    return torch.randn(batch, length, 24), hidden
"""
COMPILE = """
def gradients(function, model, x, hidden):
    x = x.clone().requires_grad_()
    output = function(x, hidden)
    return output, *torch.autograd.grad(output.square().sum(), (x, *model.parameters()))

for variant in VARIANTS:
    torch._dynamo.reset()
    model, counter = Padded(variant=variant), CompileCounterWithBackend(BACKEND)
    compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=counter)
    # The first length is none of the other sizes, as torch takes equal sizes for one.
    counts = []
    for length in LENGTHS:
        x, hidden = inputs(3, length)
        for ours, plain in zip(gradients(compiled, model, x, hidden), gradients(model, model, x, hidden)):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
        counts.append(counter.frame_count)
    # aot_eager is called twice for the first one, without a second program; later lengths call nobody.
    assert counts[0] <= 2 and len(set(counts)) == 1, f"{variant}: {counts} graphs"
print("one graph each")
"""
EXPORT = """
from torch.export import Dim
for variant in VARIANTS:
    model = Padded(variant=variant, key_reduction="mean" if variant == "hyla" else "sum")
    named = {0: Dim("b", min=2), 1: Dim("t", min=2)}
    for sizes in ({0: Dim.AUTO, 1: Dim.AUTO}, *([named] if variant == "hyla" else [])):
        program = torch.export.export(model, inputs(2, 6), dynamic_shapes=(sizes, sizes), strict=False)
        for batch, length in ((3, 11), (5, 2)):
            x, hidden = inputs(batch, length)
            torch.testing.assert_close(program.module()(x, hidden), model(x, hidden), rtol=0, atol=1e-5)
print("all exported")
"""
ENCODER = """
layer = torch.nn.TransformerEncoderLayer(24, 4, 17, 0.0, batch_first=True)
layer.self_attn = HypernetworkAttention.like(layer.self_attn)
encoder = torch.nn.TransformerEncoder(layer, 2).eval()
x, hidden = inputs(3, 7)
compiled = torch.compile(encoder, fullgraph=True, backend="eager")
torch.testing.assert_close(compiled(x, src_key_padding_mask=hidden), encoder(x, src_key_padding_mask=hidden))
print("encoder compiled")
"""


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", COMMON + program], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr[-3000:]


@pytest.mark.parametrize(
    ("backend", "lengths"),
    [("eager", (7, 2, 12)), pytest.param("aot_eager", (7, *range(2, 16)), marks=pytest.mark.slow)],
)
def test_one_graph_serves_all_lengths(backend: str, lengths: tuple[int, ...]) -> None:
    program = COMPILE.replace("BACKEND", repr(backend)).replace("LENGTHS", repr(lengths))
    assert run(program) == "one graph each"


def test_export_with_dynamic_shapes() -> None:
    assert run(EXPORT) == "all exported"


def test_encoder_with_padding_compiles() -> None:
    """Torch's own case is test_fast_path_check_with_mask_does_not_break_in_compile."""
    assert run(ENCODER) == "encoder compiled"
