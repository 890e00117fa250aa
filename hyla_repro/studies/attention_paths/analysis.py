"""The chapter's tables: cuts through what was computed, and what linear HYLA is as a network of paths."""

import pandas as pd
import torch
from einops import einsum, rearrange
from scipy.stats import spearmanr

from hyla_repro.attention import HypernetworkAttention
from hyla_repro.studies.attention_paths.chains import AUTHORS, FOUR, TINY, TWO, WIDTHS
from hyla_repro.studies.attention_paths.inputs import path_inputs

GOOD, DENOISING = "good > uniform", {FOUR: "random > uniform", TWO: "uniform > uniform"}


def of_net(points: pd.DataFrame, net: tuple[str, float]) -> pd.DataFrame:
    """Return the rows of one network and its noise."""
    heads, noise = net
    return points[(points["heads"] == heads) & (points["noise"] == noise)]


def by_draw(table: pd.DataFrame, method: str, quantity: str, width: int | None = None, **names: str) -> pd.Series:
    """Return a quantity by draw, without the authors'.

    Args:
        names: of paths or heads, by the columns `first` and `second`.
    """
    part = table[(table["method"] == method) & (table["quantity"] == quantity) & (table["draw"] != AUTHORS)]
    if width is not None:
        part = part[part["width"] == width]
    for column, name in names.items():
        part = part[part[column] == name]
    return part.set_index("draw")["value"].sort_index()


def order_parameter(table: pd.DataFrame, method: str, width: int) -> pd.DataFrame:
    """Return the order parameter of a width by the names of paths; of several draws or chains, the mean."""
    part = table[(table["method"] == method) & (table["width"] == width) & (table["quantity"] == "order parameter")]
    upper = part.groupby(["first", "second"], sort=False)["value"].mean().unstack()
    names = list(dict.fromkeys(part["first"]))
    upper = upper.reindex(index=names, columns=names)
    return upper.combine_first(upper.T).reindex(index=names, columns=names)


def correlation(points: pd.DataFrame, net: tuple[str, float]) -> pd.Series:
    """Return the correlation of the good and the denoising path in the order parameter at N=10, by draw."""
    table, other = of_net(points, net), DENOISING[net]
    entries = [by_draw(table, "theory", "order parameter", 10, first=first, second=second)
               for first, second in ((GOOD, GOOD), (other, other), (GOOD, other))]  # fmt: skip
    return entries[2] / (entries[0] * entries[1]) ** 0.5


def best_overlap(table: pd.DataFrame, method: str, width: int, among: int = 5) -> pd.Series:
    """Return the best overlap of the leading eigenvectors with the labels, by draw."""
    part = table[(table["quantity"] == "overlap") & (table["first"].isin([str(n) for n in range(1, among + 1)]))]
    part = part[(part["method"] == method) & (part["width"] == width) & (part["draw"] != AUTHORS)]
    return part.groupby("draw")["value"].max()


def chains(points: pd.DataFrame) -> pd.DataFrame:
    """Return what each chain of the exact posterior says, by width and chain."""
    part = points[(points["method"] == "chain") & (points["quantity"] != "order parameter")]
    return part.pivot(index=["width", "repetition"], columns="quantity", values="value")


def errors(points: pd.DataFrame) -> pd.Series:
    """Return the theory's relative error on few examples, by width."""
    part = points[(points["examples"] == TINY) & (points["quantity"] == "relative error")]
    return part.set_index("width")["value"].sort_index()


def silenced(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per draw and head: score, accuracy without it and by how much that is lower."""
    part = table[(table["method"] == "silenced") & (table["second"] != "")]
    heads = part.pivot(index=["draw", "first", "second"], columns="quantity", values="value").reset_index()
    heads = heads.rename(columns={"first": "layer", "second": "head"})
    whole = by_draw(table, "silenced", "accuracy")
    return heads.assign(
        drop=heads["draw"].map(whole) - heads.get("accuracy without"), random=heads["head"].str.startswith("random")
    )


def lead(layer: pd.DataFrame) -> float:
    """Return by how much the useful head of a layer has a higher score than its random ones."""
    return layer.loc[~layer["random"], "score"].min() - layer.loc[layer["random"], "score"].max()


def width_table(points: pd.DataFrame, net: tuple[str, float], draw: int = AUTHORS) -> pd.Series:
    """Return accuracies in percent: of Gaussian processes, and of the theory by width."""
    table = of_net(points, net)
    part = table[(table["draw"] == draw) & (table["quantity"] == "accuracy")]
    infinite = part[part["method"] == "infinite"].set_index("first")["value"].add_prefix("infinite, ")
    theory = part[part["method"] == "theory"].set_index("width")["value"].reindex(WIDTHS)
    return pd.concat([infinite, theory.rename("N={}".format)])


def head_correlations(heads: pd.DataFrame, column: str, surrogate: str = "one layer") -> pd.Series:
    """Return Spearman's correlation of the score with another column over the heads of a layer, averaged, by seed."""
    found = heads[heads["surrogate"] == surrogate].groupby(["seed", "layer"])
    each = {key: spearmanr(part["score"], part[column]).statistic for key, part in found}
    return pd.Series(each, dtype=float).groupby(level=0).mean()


def hyla_path_error(seed: int = 0, n_heads: int = 3, n_tokens: int = 5) -> float:
    """Return the largest difference between two layers of linear HYLA and the sum of their paths.

    Each layer's paths are pairs of heads, one that the code picks for the value network's first layer and one for its
    second; what a path reads is weighted by the product of both entries of the code.
    """
    draw = torch.Generator().manual_seed(seed)
    width = 4 * n_heads
    layers = [
        HypernetworkAttention(width, n_heads, bias=False, value_network="hyper_linear").double() for _ in range(2)
    ]
    x = torch.randn(2, n_tokens, width, generator=draw, dtype=torch.float64)
    z, maps, values = x, [], []
    with torch.no_grad():
        for layer in layers:
            for weight in layer.parameters():
                weight.copy_(torch.randn(weight.shape, generator=draw, dtype=torch.float64) * width**-0.5)
            z, code = layer(z, z, z)
            pairs = einsum(code, code, "b h q k, b g q k -> b h g q k")
            maps.append(rearrange(pairs, "b h g q k -> b (h g) q k"))
            value = rearrange(layer.in_proj_weight[2 * width :], "(h d) i -> h d i", h=n_heads)
            output = rearrange(layer.out_proj.weight, "o (g d) -> g o d", g=n_heads)
            values.append(rearrange(einsum(output, value, "g o d, h d i -> h g o i"), "h g o i -> (h g) o i"))
        composed = einsum(values[1], values[0], "q o m, p m i -> p q o i")
        paths = path_inputs(x, maps)
        through = einsum(rearrange(composed, "p q o i -> (p q) o i"), paths, "r o i, b r i -> b o")
        return (through - z[:, -1]).abs().max().item()
