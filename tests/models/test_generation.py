"""Generation: cached steps against whole texts, draws against a plain loop and their probabilities, refusals."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from hyla_repro.attention import VARIANTS, KeyValueCache
from hyla_repro.counter_rng import CounterRNG
from hyla_repro.models import Transformer, TransformerConfig, generate

VOCABULARY, POSITIONS, LAYERS = 17, 11, 2
SIZES = {
    "variant": "hyla", "n_layers": LAYERS, "d_model": 11, "n_heads": 3, "qk_dim": 12, "v_dim": 6, "d_ff": 13,
    "n_positions": POSITIONS, "vocab_size": VOCABULARY, "causal": True,
}  # fmt: skip
EXPERTS = {"feed_forward": "moe", "n_experts": 3, "experts_per_token": 2}
KINDS = [
    {"position": position, **feed_forward}
    for position in ("relative", "rotary")
    for feed_forward in ({"feed_forward": "gelu"}, {"feed_forward": "swiglu"}, EXPERTS)
]


def make(**changes: object) -> Transformer:
    """Return a model whose next token depends on all before it, and is rarely the one before."""
    model = Transformer(TransformerConfig(**SIZES | changes)).initialize(3)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.out_proj.weight.mul_(5.0)
    return model


def draw_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def new_caches() -> list[KeyValueCache]:
    return [KeyValueCache() for _ in range(LAYERS)]


# --- caches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['position']}-{kind['feed_forward']}")
@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_steps_read_out_what_the_whole_text_does(variant: str, kind: dict) -> None:
    model, text = make(variant=variant, **kind), draw_tokens(2, POSITIONS)
    with torch.no_grad():
        whole, whole_codes = model(text, return_codes=True)
        caches, start = new_caches(), 0
        for new in text.split((3, 1, 1, 4, 2), dim=1):
            end = start + new.shape[1]
            outputs, codes = model(new, return_codes=True, caches=caches)
            torch.testing.assert_close(outputs, whole[:, start:end], rtol=1e-5, atol=1e-5)
            for code, whole_code in zip(codes, whole_codes, strict=True):
                torch.testing.assert_close(code, whole_code[:, :, start:end, :end], rtol=1e-4, atol=1e-5)
            start = end
    assert [len(cache) for cache in caches] == [POSITIONS] * LAYERS
    # What is compared depends on the whole text: other first tokens change the last read-out.
    other = torch.cat([(text[:, :1] + 1) % VOCABULARY, text[:, 1:]], dim=1)
    assert (model(other)[:, -1] - whole[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["aaren", "softmax_causal", "hyla_learned_query", "softmax_bn", "hyla_bn"])
def test_cached_steps_of_neighbours_read_out_what_the_whole_text_does(variant: str) -> None:
    test_cached_steps_read_out_what_the_whole_text_does(variant, {})
    with pytest.raises(ValueError, match=rf"variant='{variant}' has positions of its own"):
        make(variant=variant, position="rotary")


@pytest.mark.parametrize("position", ["relative", "rotary"])
def test_last_counts_the_new_tokens(position: str) -> None:
    model, text, caches = make(position=position), draw_tokens(2, 7), new_caches()
    model(text[:, :3], last=1, caches=caches)
    torch.testing.assert_close(model(text[:, 3:], last=2, caches=caches), model(text)[:, -2:], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="last=2 is out of range: these inputs have 1 to 1 tokens"):
        model(text[:, :1], last=2, caches=caches)


def test_caches_that_do_not_fit_are_refused() -> None:
    model, text = make(), draw_tokens(2, 6)
    one, filled = KeyValueCache(), new_caches()
    model(text, caches=filled)
    for caches, lengths in (
        ([], r"\[\]"),
        ([KeyValueCache()], r"\[0\]"),
        ([one, one], r"\[0, 0\]"),
        ([filled[0], one], r"\[6, 0\]"),
        ([*new_caches(), one], r"\[0, 0, 0\]"),
    ):
        with pytest.raises(ValueError, match=f"caches of lengths {lengths} do not fit: give 2 KeyValueCache"):
            model(text[:, :1], caches=caches)
    with pytest.raises(ValueError, match="12 tokens exceed n_positions=11"):
        model(text, caches=filled)
    # A refusal leaves the caches as they were.
    assert [len(cache) for cache in filled] == [6, 6]
    with pytest.raises(ValueError, match="caches need a model with causal=True"):
        make(causal=False)(text, caches=new_caches())


# --- texts ------------------------------------------------------------------------------------------------------


def plain_loop(model: Transformer, text: Tensor, steps: int, temperature: float, seed: int) -> Tensor:
    """Generate without caches, and draw by counting the probabilities that a number passes."""
    for place in range(text.shape[1], text.shape[1] + steps):
        outputs = model(text[:, -POSITIONS:])[:, -1]
        probabilities = (outputs / temperature).softmax(-1)
        high, low = CounterRNG(seed, "generate").uniform(place, (len(text), 2)).double().T
        drawn = (probabilities.cumsum(-1) <= (high + low / 2**24)[:, None]).sum(-1, keepdim=True)
        text = torch.cat([text, drawn], dim=1)
    return text


@pytest.mark.parametrize("position", ["relative", "rotary"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_texts_are_those_of_a_plain_loop_also_beyond_the_positions(variant: str, position: str) -> None:
    model, prompt = make(variant=variant, position=position).double(), draw_tokens(3, 4)
    text = generate(model, prompt, POSITIONS + 3, temperature=0.5, seed=5)
    assert text.shape == (3, POSITIONS + 7)
    assert text.dtype == torch.int64
    assert torch.equal(text, plain_loop(model, prompt, POSITIONS + 3, 0.5, 5))
    assert len(text[:, 4:].unique()) > 3


def test_every_token_is_computed_once_as_long_as_the_whole_text_is_seen() -> None:
    model, seen = make(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    generate(model, draw_tokens(2, 4), 2 + POSITIONS - 4 + 1)
    assert seen == [4] + [1] * (POSITIONS - 4) + [POSITIONS] * 2


@pytest.mark.parametrize("position", ["relative", "rotary"])
def test_caches_cannot_slide(position: str) -> None:
    """Why the window is computed anew: cached keys above the first layer know of tokens that are gone from it."""
    model, text, caches = make(position=position), draw_tokens(1, POSITIONS + 1), new_caches()
    model(text[:, :-1], caches=caches)
    for cache in caches:
        cache.keys, cache.values = cache.keys[:, :, 1:], cache.values[:, :, 1:]
    slid, anew = model(text[:, -1:], caches=caches), model(text[:, 1:], last=1)
    assert (slid - anew).abs().max() > 1e-3


def test_texts_repeat_exactly_and_differ_by_seed() -> None:
    model, prompt = make(), draw_tokens(4, 3)
    text = generate(model, prompt, 6, seed=1)
    torch.manual_seed(7)
    assert torch.equal(generate(model, prompt, 6, seed=1), text)
    assert not torch.equal(generate(model, prompt, 6, seed=2), text)
    assert torch.equal(text[:, :3], prompt)
    assert not text.requires_grad


def test_a_draw_depends_on_its_place_and_row_alone() -> None:
    model, prompt = make().double(), draw_tokens(4, 3)
    text = generate(model, prompt, 7, seed=1)
    assert torch.equal(generate(model, prompt[:2], 7, seed=1), text[:2])
    assert torch.equal(generate(model, generate(model, prompt, 3, seed=1), 4, seed=1), text)
    # Equal prompts in other rows have draws of their own.
    assert len(generate(model, prompt[:1].expand(8, -1), 7).unique(dim=0)) > 1


@pytest.mark.parametrize("steps", [0, 1])
def test_prompts_of_any_integers_stay_as_they_are(steps: int) -> None:
    prompt = draw_tokens(2, POSITIONS).to(torch.int16)
    assert torch.equal(generate(make(), prompt, steps)[:, :POSITIONS], prompt.long())


# --- draws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.6, None), (1.0, 5), (0.5, 5)])
def test_tokens_are_drawn_with_their_probabilities(temperature: float, top_k: int | None) -> None:
    model, prompt, rows = make(), draw_tokens(1, 5), 10_000
    with torch.no_grad():
        model.norm.weight.mul_(6.0)
        outputs = model(prompt, last=1)[0, 0].double()
    drawn = generate(model, prompt.expand(rows, -1), 1, temperature, top_k, seed=0)[:, -1]
    counts = torch.bincount(drawn, minlength=VOCABULARY).double()

    def distance(temperature: float) -> float:
        """Return chi-square over its degrees of freedom, which is 1 on average."""
        best = outputs.argsort(descending=True)[:top_k]
        expected = rows * (outputs[best] / temperature).softmax(-1)
        assert counts[best].sum() == rows
        return float(((counts[best] - expected).square() / expected).sum() / (len(best) - 1))

    assert distance(temperature) < 4
    assert distance(1.5 * temperature) > 12


def test_the_likeliest_token_is_top_k_one_or_the_limit_of_low_temperatures() -> None:
    model, text = make().double(), draw_tokens(3, 4)
    for options in ({"top_k": 1}, {"temperature": 1e-320}):
        greedy = generate(model, text, 6, **options)
        for place in range(4, 10):
            assert torch.equal(greedy[:, place], model(greedy[:, :place])[:, -1].argmax(-1))
    assert max(Counter(greedy[:, 4:].flatten().tolist()).values()) < greedy[:, 4:].numel()


def test_rare_tokens_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of 24 bits is at most 1 - 6e-8, and would never reach the last token if that is as rare as 1e-10."""
    model, prompt, last = make().double(), draw_tokens(1, 5), VOCABULARY - 1
    outputs = model(prompt)[0, -1].detach()
    temperature = float(outputs.max() - outputs[last]) / 23
    assert 1e-11 < (outputs / temperature).softmax(-1)[last] < 1e-9
    for number, expected in ((0.0, 0), (1 - 2.0**-24, last)):
        monkeypatch.setattr(CounterRNG, "uniform", lambda rng, step, shape, number=number: torch.full(shape, number))
        drawn = int(generate(model, prompt, 1, temperature)[0, -1])
        assert drawn == expected


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature=0.0 is not above 0 and finite: for the likeliest token use top_k=1"),
        ({"temperature": -1.0}, r"temperature=-1.0 is not above 0"),
        ({"temperature": float("nan")}, r"temperature=nan is not above 0"),
        ({"top_k": 0}, r"top_k=0 is out of range: use 1 to 17"),
        ({"top_k": 18}, r"top_k=18 is out of range: use 1 to 17"),
        ({"steps": -1}, r"steps=-1 is out of range: use 0 or more"),
        ({"seed": -1}, r"seed=-1 is out of range"),
        ({"prompt": torch.zeros(1, 0).long()}, r"prompt is torch.int64 of shape \(1, 0\): needs .* at least one text"),
        ({"prompt": torch.zeros(0, 1).long()}, r"shape \(0, 1\): needs"),
        ({"prompt": torch.zeros(3).long()}, r"shape \(3,\): needs \(batch, token\) of token numbers"),
        ({"prompt": torch.zeros(1, 3)}, r"prompt is torch.float32 of shape \(1, 3\)"),
        ({"prompt": torch.zeros(1, 12).long()}, r"12 tokens, which exceed n_positions=11.*prompt\[:, -11:\]"),
        ({"prompt": torch.tensor([[1, 17]])}, r"prompt has token 17: .*vocabulary are 0 to 16"),
        ({"prompt": torch.tensor([[-1, 3]])}, r"prompt has token -1: .*vocabulary are 0 to 16"),
    ],
)
def test_what_cannot_be_generated_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**{"model": make(), "prompt": draw_tokens(1, 3), "steps": 2} | options)


def test_models_that_cannot_generate_are_named() -> None:
    with pytest.raises(ValueError, match="causal=False has seen the tokens"):
        generate(make(causal=False), draw_tokens(1, 3), 1)
    vectors = make(vocab_size=None, n_inputs=5, n_outputs=2)
    with pytest.raises(ValueError, match=r"a model of vectors \(n_inputs=5\) has no next token"):
        generate(vectors, draw_tokens(1, 3), 1)
    broken = make()
    broken.norm.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="outputs are not finite numbers"):
        generate(broken, draw_tokens(1, 3), 1)
