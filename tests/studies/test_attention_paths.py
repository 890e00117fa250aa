"""Attention paths: arrays of the authors' library, closed forms, and what must hold for any network."""

from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import einsum, rearrange
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import Tensor

from hyla_repro.studies.attention_paths import (
    OrderParameter,
    Prior,
    attention_maps,
    effective_weights,
    energy,
    entropy,
    gp_order_parameter,
    head_scores,
    hidden_markov_chain,
    hmm_heads,
    kernel_alignment,
    order_parameter_from_weights,
    path_inputs,
    path_kernels,
    path_names,
    predict,
    predict_mean,
    sample_order_parameter,
    silence_head,
    solve,
    total_kernel,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "related" / "attention_paths"
# The spec of each recorded setting: prior, temperature, readout.
SETTINGS = {
    "l1": (Prior((3,), (6, 8), (1.0, 1.0, 1.0)), 0.05, "last"),
    "l3": (Prior((2, 3, 2), (12, 9, 15, 10), (1.3, 0.8, 1.2, 0.7, 1.1)), 0.1, "mean"),
    "hmm": (Prior.equal((2, 2), 10), 0.01, "last"),
}
AUTHORS_HEADS = (("good", ("random", 147)), ("uniform", ("random", 247)))
# Every size differs, so that no axis can stand in for another.
UNEQUAL = Prior((2, 3), (5, 7, 4), (1.3, 0.7, 1.6, 0.9))


@cache
def recorded(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def layers(name: str, point: str) -> list[Tensor]:
    arrays = recorded(name)
    return [arrays[f"{point}_U{layer}"] for layer in range(1, 1 + len(SETTINGS[name][0].heads))]


def close(ours: Tensor | float, theirs: Tensor, tolerance: float = 1e-8) -> bool:
    ours = torch.as_tensor(ours, dtype=torch.float64)
    return bool((ours - theirs.reshape(ours.shape)).abs().max() <= tolerance * max(1.0, theirs.abs().max()))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def maps_of(heads: Sequence[int], examples: int, tokens: int, seed: int = 0) -> list[Tensor]:
    return [normal(examples, n, tokens, tokens, seed=seed + i).softmax(-1) for i, n in enumerate(heads)]


def problem(prior: Prior, examples: int = 9, tokens: int = 5, width: int = 11, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Path inputs of random tokens and maps, and labels."""
    x = normal(examples, tokens, width, seed=seed)
    labels = torch.where(torch.arange(examples) % 2 == 0, 1.0, -1.0).double()
    return path_inputs(x, maps_of(prior.heads, examples, tokens, seed + 1)), labels


def weights(prior: Prior, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Draw V^1 ... V^L and a of the prior."""
    outputs = prior.widths[1:]
    values = [normal(h, o, n, seed=seed + i) * s**0.5 for i, (h, o, n, s) in
              enumerate(zip(prior.heads, outputs, prior.widths, prior.variances[1:], strict=False))]  # fmt: skip
    return values, normal(prior.widths[-1], seed=seed + 99) * prior.variances[-1] ** 0.5


class TestAuthorsLibrary:
    @pytest.mark.parametrize("name", ["l1", "l3"])
    def test_maps_and_path_inputs(self, name: str) -> None:
        arrays, (prior, _, readout) = recorded(name), SETTINGS[name]
        for part in ("train", "test"):
            x = rearrange(arrays[f"x_{part}"], "b i t -> b t i")
            maps = [rearrange(arrays[f"map{n + 1}_{part}"], "b h k q -> b h q k") for n in range(len(prior.heads))]
            assert close(path_inputs(x, maps, readout), arrays[f"xi_{part}"], 1e-13)

    def test_attention_of_given_weights(self) -> None:
        arrays = recorded("l1")
        x = rearrange(arrays["x_train"], "b i t -> b t i")
        for hard, name in ((False, "map1_train"), (True, "map1_train_hardmax")):
            assert close(attention_maps(x, arrays["W1"], hard), rearrange(arrays[name], "b h k q -> b h q k"), 1e-13)

    @pytest.mark.parametrize("name", SETTINGS)
    @pytest.mark.parametrize("point", ["gp", "rand", "opt"])
    def test_kernel_energy_entropy_and_predictor(self, name: str, point: str) -> None:
        arrays, (prior, temperature, _), at = recorded(name), SETTINGS[name], layers(name, point)
        train, test, labels, variance = arrays["xi_train"], arrays["xi_test"], arrays["y_train"], prior.variances[0]
        assert close(total_kernel(at[0], path_kernels(train, train, variance)), arrays[f"{point}_K"])
        assert close(energy(at[0], train, labels, temperature, variance), arrays[f"{point}_energy"])
        value, u_a = entropy(at, prior)
        assert close(value, arrays[f"{point}_entropy"])
        assert close(u_a, arrays[f"{point}_u_a"])
        ours = predict(at[0], train, labels, test, temperature, variance)
        assert close(ours.mean, arrays[f"{point}_mean"])
        assert close(ours.variance, arrays[f"{point}_var"])

    @pytest.mark.parametrize("name", SETTINGS)
    def test_gradients(self, name: str) -> None:
        arrays, (prior, temperature, _) = recorded(name), SETTINGS[name]
        at = [layer.clone().requires_grad_() for layer in layers(name, "rand")]
        data = energy(at[0], arrays["xi_train"], arrays["y_train"], temperature, prior.variances[0])
        ((data + entropy(at, prior)[0]) / max(prior.widths)).backward()
        for n, layer in enumerate(at, start=1):
            assert layer.grad is not None
            assert close((layer.grad + layer.grad.mT) / 2, arrays[f"rand_grad_U{n}"])

    @pytest.mark.parametrize("name", SETTINGS)
    def test_solution(self, name: str) -> None:
        arrays, (prior, temperature, _) = recorded(name), SETTINGS[name]
        found = solve(arrays["xi_train"], arrays["y_train"], temperature, prior)
        for ours, theirs in zip(found.layers, layers(name, "opt"), strict=True):
            assert close(ours, theirs)
        assert close(found.readout, arrays["opt_u_a"])
        assert close(found.action, arrays["opt_action_over_maxN"])
        assert found.gradient < 1e-7
        assert found.curvature > 0

    @pytest.mark.parametrize("name", ["l3", "hmm"])
    @pytest.mark.parametrize("point", ["rand", "opt"])
    def test_head_scores(self, name: str, point: str) -> None:
        scores = head_scores(layers(name, point)[0], SETTINGS[name][0].heads)
        for layer, head, score in recorded(name)[f"{point}_head_scores"].tolist():
            assert scores[int(layer)][int(head)].item() == pytest.approx(score, abs=1e-12)

    def test_head_scores_of_one_layer(self) -> None:
        # Their function fails there; the recorded scores follow its formula by hand.
        (scores,) = head_scores(layers("l1", "opt")[0], (3,))
        assert close(scores, recorded("l1")["opt_head_scores_OWN"], 1e-12)

    def test_hidden_markov_chains_and_heads(self) -> None:
        inputs, arrays, whole = recorded("hmm_inputs"), recorded("hmm_maps"), recorded("hmm")
        weights = [hmm_heads(*names) for names in AUTHORS_HEADS]
        for part, examples, seed, shown, mapped in (("train", 20, 27, 3, 5), ("test", 10, 59, 1, 2)):
            x, labels = hidden_markov_chain(examples, seed)
            assert close(rearrange(x[:shown], "b t i -> b i t"), inputs[f"x_{part}_first{shown}"], 1e-13)
            assert labels.equal(whole[f"y_{part}"])
            maps = [attention_maps(x, weight) for weight in weights]
            for n, layer in enumerate(maps, start=1):
                assert close(rearrange(layer[:mapped], "b h q k -> b h k q"), arrays[f"map{n}_{part}_first{mapped}"])
            assert close(path_inputs(x, maps), whole[f"xi_{part}"])
        for n, weight in enumerate(weights, start=1):
            assert close(weight[1].sum(1), arrays[f"W{n}_random_row_sums"], 1e-12)
            assert close(weight[0][200:, 200:], arrays[f"W{n}_first_head_position_block"], 1e-14)

    def test_noise_of_the_plane_and_of_the_rest(self) -> None:
        quiet, _ = hidden_markov_chain(20, 3, noise=0.0, plane_noise=0.0)
        states = quiet[:, 1:, [0, 199]]
        assert set(states.flatten().tolist()) == {0.0, 2**0.5}
        loud, _ = hidden_markov_chain(20, 3, noise=5.0, plane_noise=2.0)
        rest = (loud - quiet)[:, 1:, :200]
        plane = torch.stack([rest[..., :100].sum(-1), rest[..., 100:].sum(-1)]) / 10
        assert plane.std().item() == pytest.approx(2.0, rel=0.1)
        assert ((rest.square().sum(-1) - plane.square().sum(0)).mean() / 198).sqrt().item() == pytest.approx(
            5, rel=0.02
        )

    @pytest.mark.slow
    def test_whole_task_at_seven_widths(self) -> None:
        arrays = recorded("hmm_full_4paths")
        (train, labels), (test, test_labels) = hidden_markov_chain(100, 27), hidden_markov_chain(1000, 59)
        weights = [hmm_heads(*names) for names in AUTHORS_HEADS]
        train, test = (path_inputs(x, [attention_maps(x, weight) for weight in weights]) for x in (train, test))
        for n, width in enumerate(arrays["N"].int().tolist()):
            found = solve(train, labels, 0.01, Prior.equal((2, 2), width))
            assert close(found.paths, arrays["U1"][n])
            assert close(found.layers[1], arrays["U2"][n])
            accuracy = predict(found.paths, train, labels, test, 0.01).accuracy(test_labels)
            assert accuracy == pytest.approx(arrays["accuracy"][n].item(), abs=1e-9)


class TestNetwork:
    @given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 99), st.sampled_from(["last", "mean"]))
    def test_paths_add_up_to_the_forward_pass(self, heads: list[int], seed: int, readout: str) -> None:
        """Invariant 1."""
        layers, (examples, tokens, width) = len(heads), (3, 4, 6)
        prior = Prior(tuple(heads), (5, 7, 2, 3)[: layers + 1], (1.0,) * (layers + 2))
        x, maps = normal(examples, tokens, width, seed=seed), maps_of(heads, examples, tokens, seed)
        values, out = weights(prior, seed)
        first = normal(prior.widths[0], width, seed=seed + 50)
        z = einsum(first, x, "n i, b t i -> b t n") / width**0.5
        for layer, (code, value) in enumerate(zip(maps, values, strict=True)):
            mixed = einsum(code, value, z, "b h q k, h o n, b k n -> b q o")
            z = mixed / (heads[layer] * prior.widths[layer]) ** 0.5
        z = z[:, -1] if readout == "last" else z.mean(1)
        direct = z @ out / len(out) ** 0.5
        paths = einsum(effective_weights(values, out), first, path_inputs(x, maps, readout), "p n, n i, b p i -> b")
        assert close(paths / (width * prior.widths[0] * prior.n_paths) ** 0.5, direct, 1e-12)

    def test_linear_hyla_is_a_path_theory(self) -> None:
        """Invariant 14: a layer whose code is applied twice is a layer of pairs of heads."""
        examples, tokens, width, heads, inner, out = 3, 4, 6, 3, 2, 5
        z, code = normal(examples, tokens, width), normal(examples, heads, tokens, tokens, seed=1)
        value, output = normal(heads, inner, width, seed=2), normal(heads, out, inner, seed=3)
        hidden = einsum(code, value, z, "b h q k, h d n, b k n -> b q k d")
        direct = einsum(code, output, hidden, "b h q k, h o d, b q k d -> b q o")
        pairs = rearrange(einsum(code, code, "b h q k, b g q k -> b h g q k"), "b h g q k -> b (h g) q k")
        composed = rearrange(einsum(output, value, "g o d, h d n -> h g o n"), "h g o n -> (h g) o n")
        assert close(einsum(composed, path_inputs(z, [pairs]), "p o n, b p n -> b o"), direct[:, -1], 1e-12)

    def test_uniform_maps_give_the_mean_token(self) -> None:
        """Invariant 13."""
        x = normal(3, 5, 7)
        inputs = path_inputs(x, [torch.full((3, h, 5, 5), 1 / 5, dtype=torch.float64) for h in (2, 3)])
        assert close(inputs, x.mean(1, keepdim=True).expand(3, 6, 7), 1e-14)

    def test_paths_are_named_in_the_order_of_the_arrays(self) -> None:
        assert path_names("ab", "xy") == ["a > x", "a > y", "b > x", "b > y"]

    def test_weights_of_the_prior_have_its_order_parameter_on_average(self) -> None:
        drawn = torch.stack([order_parameter_from_weights(*weights(UNEQUAL, 7 * seed)) for seed in range(3000)])
        expected = gp_order_parameter(UNEQUAL)[0]
        error = (drawn.mean(0) - expected).abs() / drawn.std(0) * len(drawn) ** 0.5
        assert error.max() < 4


class TestTheory:
    def test_entropy_is_stationary_at_infinite_width(self) -> None:
        """Invariant 2, with sizes and variances that all differ."""
        at = [layer.requires_grad_() for layer in gp_order_parameter(UNEQUAL)]
        value, u_a = entropy(at, UNEQUAL)
        value.backward()
        assert u_a.item() == pytest.approx(UNEQUAL.variances[-1], abs=1e-13)
        assert all(layer.grad is not None and layer.grad.abs().max() < 1e-12 for layer in at)

    def test_kernel_and_order_parameters_are_positive(self) -> None:
        """Invariants 2 and 9."""
        inputs, labels = problem(UNEQUAL)
        found = solve(inputs, labels, 0.1, UNEQUAL)
        for matrix in (*found.layers, total_kernel(found.paths, path_kernels(inputs, inputs, UNEQUAL.variances[0]))):
            assert close(matrix, matrix.mT, 1e-13)
            assert torch.linalg.eigvalsh(matrix).min() > -1e-12
        test, _ = problem(UNEQUAL, examples=20, seed=5)
        assert predict(found.paths, inputs, labels, test, 0.1, UNEQUAL.variances[0]).variance.min() >= 0

    def test_the_mean_goes_through_the_labels_without_noise(self) -> None:
        """Invariant 9."""
        inputs, labels = problem(UNEQUAL)
        found = solve(inputs, labels, 0.01, UNEQUAL)
        assert close(predict(found.paths, inputs, labels, inputs, 1e-9).mean, labels, 1e-6)

    def test_wide_networks_are_gaussian_processes(self) -> None:
        """Invariant 3: the distance falls as 1 / N."""
        inputs, labels = problem(Prior.equal((3,), 1))

        def distance(width: int) -> float:
            found = solve(inputs, labels, 0.1, Prior.equal((3,), width), tolerance=1e-10)
            return (found.paths - torch.eye(3)).abs().max().item()

        assert distance(10**6) < 1e-4
        assert 10**4 * distance(10**4) == pytest.approx(10**6 * distance(10**6), rel=0.01)

    @pytest.mark.parametrize("layers", [1, 2, 3])
    @pytest.mark.parametrize("load", [0.5, 2.0])
    def test_one_path_has_a_closed_form(self, layers: int, load: float) -> None:
        """Invariant 4: the scalar renormalisation of deep linear networks (Li and Sompolinsky, 2021)."""
        width, examples = 8, int(8 * load)
        prior = Prior.equal((1,) * layers, width)
        inputs, labels = problem(prior, examples, width=31)
        kernel = path_kernels(inputs, inputs)[0, 0]
        pull = (labels @ torch.linalg.solve(kernel, labels)).item()
        # Without noise: 1 - u0 = P / N - y^T K0^{-1} y / (N u0^(L + 1)), and u = u0^(L + 1).
        root = brentq(lambda u: 1 - u - load + pull / (width * u ** (layers + 1)), 1e-3, 1e3)
        assert solve(inputs, labels, 1e-9, prior).paths.item() == pytest.approx(root ** (layers + 1), rel=1e-6)

    def test_one_layer_is_at_its_fixed_point(self) -> None:
        """Invariant 5: U^-1 = I / (u_a s_1) + (Tr Q C - w^T C w) / (N_1 H), Q = (K + T I)^-1, w = Q y."""
        prior = Prior((3,), (6, 8), (1.2, 0.8, 1.5))
        inputs, labels = problem(prior)
        found, kernels = solve(inputs, labels, 0.05, prior), path_kernels(inputs, inputs, 1.2)
        inverse = torch.linalg.inv(total_kernel(found.paths, kernels) + 0.05 * torch.eye(len(labels)))
        w = inverse @ labels
        pull = einsum(inverse - torch.outer(w, w), kernels, "a b, p q a b -> p q") / (6 * 3)
        expected = torch.eye(3) / (found.readout * 0.8) + (pull + pull.mT) / 2
        assert close(torch.linalg.inv(found.paths), expected, 1e-6)
        assert found.gradient < 1e-7

    def test_the_order_of_heads_does_not_matter(self) -> None:
        """Invariant 6."""
        inputs, labels = problem(UNEQUAL)
        order = rearrange(rearrange(torch.arange(6), "(h g) -> h g", h=2)[[1, 0]][:, [2, 0, 1]], "h g -> (h g)")
        first, second = (solve(given, labels, 0.1, UNEQUAL) for given in (inputs, inputs[:, order]))
        assert close(second.paths, first.paths[order][:, order])
        assert second.action == pytest.approx(first.action, abs=1e-10)

    def test_equal_heads_get_equal_weights(self) -> None:
        """Invariant 7."""
        maps = maps_of((3,), 9, 5)[0]
        labels = problem(Prior.equal((1,), 1))[1]
        inputs = path_inputs(normal(9, 5, 11), [maps[:, [0, 1, 1]]])
        u = solve(inputs, labels, 0.1, Prior.equal((3,), 8)).paths
        assert close(u[1, 1], u[2, 2])
        assert close(u[0, 1], u[0, 2])

    @pytest.mark.parametrize(("up", "down"), [(1, 2), (3, 1), (2, 3)])
    def test_only_the_product_of_the_variances_counts(self, up: int, down: int) -> None:
        """Invariant 8."""
        inputs, labels = problem(UNEQUAL)
        variances = list(UNEQUAL.variances)
        variances[up] *= 3
        variances[down] /= 3
        other = Prior(UNEQUAL.heads, UNEQUAL.widths, tuple(variances))
        first, second = (solve(inputs, labels, 0.1, prior).paths for prior in (UNEQUAL, other))
        assert close(second, first, 2e-7)

    def test_one_head_keeps_the_eigenvectors(self) -> None:
        """Invariant 12: one path can only scale its kernel, so no width makes it fit the task better."""
        prior = Prior.equal((1, 1), 5)
        inputs, labels = problem(prior)
        kernels = path_kernels(inputs, inputs)
        learned = total_kernel(solve(inputs, labels, 0.1, prior).paths, kernels)
        assert close(kernel_alignment(learned, labels, 5), kernel_alignment(kernels[0, 0], labels, 5))
        # Several paths can.
        inputs, labels = problem(UNEQUAL)
        kernels = path_kernels(inputs, inputs)
        kernel = total_kernel(solve(inputs, labels, 0.1, UNEQUAL).paths, kernels)
        fixed = total_kernel(gp_order_parameter(UNEQUAL)[0], kernels)
        assert (kernel_alignment(kernel, labels, 3) - kernel_alignment(fixed, labels, 3)).abs().max() > 0.01

    def test_both_ways_to_the_kernel_agree(self, monkeypatch: pytest.MonkeyPatch) -> None:
        inputs, labels = problem(UNEQUAL)
        small = solve(inputs, labels, 0.1, UNEQUAL)
        monkeypatch.setattr("hyla_repro.studies.attention_paths.theory._LARGEST_TABLE", 0)
        monkeypatch.setattr("hyla_repro.studies.attention_paths.theory._LARGEST_HESSIAN", 0)
        large = solve(inputs, labels, 0.1, UNEQUAL)
        assert close(large.paths, small.paths, 1e-5)
        assert np.isnan(large.curvature)


class TestHeads:
    @given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 99))
    def test_scores(self, heads: list[int], seed: int) -> None:
        """Invariant 11."""
        factor = normal(prod(heads), prod(heads) + 2, seed=seed)
        u = factor @ factor.mT
        scores = torch.cat(head_scores(u, heads))
        assert scores.min() >= 0
        assert scores.max() == 1
        layer, head = len(heads) - 1, heads[-1] - 1
        if prod(heads) > prod(heads[:-1]):
            assert head_scores(silence_head(u, heads, layer, head), heads)[layer][head] == 0

    def test_silence(self) -> None:
        silent = silence_head(torch.ones(6, 6, dtype=torch.float64), (2, 3), 1, 2)
        assert (silent == 0).nonzero()[:, 0].unique().tolist() == [0, 1, 2, 3, 4, 5]
        assert silent[[0, 1, 3, 4]][:, [0, 1, 3, 4]].all()
        assert not silent[[2, 5]].any()


class TestPosterior:
    def test_the_theory_is_the_limit_of_importance_sampling(self) -> None:
        """Invariant 10: the error falls as 1 / N."""
        heads, examples = (2, 2), 10
        inputs, labels = problem(Prior.equal(heads, 1), examples, tokens=6, width=12)
        errors = []
        for width in (6, 48):
            prior = Prior.equal(heads, width)
            drawn = sample_order_parameter(inputs, labels, 0.1, prior, 40_000, rng())
            assert drawn.effective_size > 1000
            theory = solve(inputs, labels, 0.1, prior).paths
            errors.append(((theory - drawn.mean).norm() / drawn.mean.norm()).item())
        assert errors[0] > 3 * errors[1]

    @pytest.mark.slow
    def test_both_samplers_agree(self) -> None:
        # The middle layer is narrower than its paths are many, which takes the other root.
        prior = Prior((2, 3), (5, 2, 4), (1.3, 0.7, 1.6, 0.9))
        inputs, labels = problem(prior)
        many = sample_order_parameter(inputs, labels, 0.2, prior, 100_000, rng())
        chain = sample_order_parameter(inputs, labels, 0.2, prior, 20_000, rng(1), "slice", burn_in=500)
        assert (many.mean - chain.mean).norm() < 0.1 * many.mean.norm()
        test, _ = problem(prior, examples=20, seed=3)
        first, second = (predict_mean(found, inputs, labels, test, 0.2, 1.3) for found in (many, chain))
        assert (first - second).abs().max() < 0.03

    def test_the_mean_of_one_draw_is_its_predictor(self) -> None:
        inputs, labels = problem(UNEQUAL)
        test, _ = problem(UNEQUAL, examples=20, seed=3)
        for method in ("importance", "slice"):
            drawn = sample_order_parameter(inputs, labels, 0.2, UNEQUAL, 1, rng(), method, burn_in=3)
            expected = predict(drawn.mean, inputs, labels, test, 0.2, 1.3).mean
            assert close(predict_mean(drawn, inputs, labels, test, 0.2, 1.3), expected, 1e-10)

    def test_draws_repeat(self) -> None:
        inputs, labels = problem(UNEQUAL)
        first, second = (sample_order_parameter(inputs, labels, 0.2, UNEQUAL, 5, rng(), "slice") for _ in range(2))
        assert first.order_parameters.equal(second.order_parameters)


class TestErrors:
    def test_priors(self) -> None:
        for arguments, words in (
            (((), (1,), (1.0, 1.0)), "1 at least"),
            (((2, 2), (3, 3), (1.0,) * 4), "L \\+ 1 widths"),
            (((2, 0), (3, 3, 3), (1.0,) * 4), "heads=0"),
            (((2,), (3, 3), (1.0, 0.0, 1.0)), "above 0"),
        ):
            with pytest.raises(ValueError, match=words):
                Prior(*arguments)

    def test_data(self) -> None:
        inputs, labels = problem(UNEQUAL)
        with pytest.raises(ValueError, match="inputs have 6 paths: heads=\\(2, 2\\) make 4"):
            solve(inputs, labels, 0.1, Prior.equal((2, 2), 5))
        with pytest.raises(ValueError, match="labels has shape \\(8,\\)"):
            solve(inputs, labels[1:], 0.1, UNEQUAL)
        with pytest.raises(ValueError, match="temperature=0"):
            solve(inputs, labels, 0.0, UNEQUAL)
        with pytest.raises(RuntimeError, match="allow more"):
            solve(inputs, labels, 0.1, UNEQUAL, tolerance=1e-30)

    def test_names(self) -> None:
        inputs, labels = problem(UNEQUAL)
        with pytest.raises(ValueError, match="did you mean 'slice'"):
            sample_order_parameter(inputs, labels, 0.1, UNEQUAL, 1, rng(), "slise")
        with pytest.raises(ValueError, match="unknown readout 'first'"):
            path_inputs(normal(2, 3, 4), maps_of((2,), 2, 3), "first")
        with pytest.raises(ValueError, match="maps is empty"):
            path_inputs(normal(2, 3, 4), [])
        with pytest.raises(ValueError, match="unknown head 'god'"):
            hmm_heads("god")
        with pytest.raises(ValueError, match="n_examples=7 is odd"):
            hidden_markov_chain(7, 0)
        with pytest.raises(ValueError, match="layer=2 is out of range"):
            silence_head(torch.eye(4), (2, 2), 2, 0)

    def test_solution_names_its_parts(self) -> None:
        inputs, labels = problem(UNEQUAL)
        found = solve(inputs, labels, 0.1, UNEQUAL)
        assert isinstance(found, OrderParameter)
        assert [len(layer) for layer in found.layers] == [6, 3]
