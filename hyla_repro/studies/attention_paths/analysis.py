"""The chapter's tables: cuts through what was computed, and what linear HYLA is as a network of paths."""

import pandas as pd
import torch
from einops import einsum, rearrange
from scipy.stats import spearmanr

from hyla_repro.attention import HypernetworkAttention
from hyla_repro.results.effects import paired
from hyla_repro.results.methods import NAMES
from hyla_repro.studies.attention_paths.chains import AUTHORS, FOUR, TINY, TWO
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
        drop=heads["draw"].map(whole) - heads["accuracy without"], random=heads["head"].str.startswith("random")
    )


def width_table(points: pd.DataFrame) -> pd.DataFrame:
    """Return accuracies in percent of Gaussian processes and of the theory by width, authors' seeds and other draws."""
    rows = {}
    for name, net in (("four paths", FOUR), ("two paths", TWO)):
        table = of_net(points, net)
        accuracy = table[table["quantity"] == "accuracy"]
        infinite = accuracy[accuracy["method"] == "infinite"].pivot(index="draw", columns="first", values="value")
        theory = accuracy[accuracy["method"] == "theory"].pivot(index="draw", columns="width", values="value")
        both = infinite.add_prefix("infinite, ").join(theory.rename(columns="N={}".format))
        rows[name, "authors' seeds"] = both.loc[AUTHORS]
        rows[name, f"mean of {len(both) - 1} draws"] = both.drop(index=AUTHORS).mean()
    return pd.DataFrame(rows).T.round(1)


def overlaps(points: pd.DataFrame) -> pd.DataFrame:
    """Return the mean overlap of the leading eigenvectors with the labels, by rank: at infinite width and at N=10."""
    part = of_net(points, FOUR)
    part = part[part["quantity"] == "overlap"]
    part = part.assign(rank=part["first"].astype(int))
    return part.pivot_table("value", index="rank", columns="width").rename(columns={0: "infinite", 10: "N=10"})


def head_correlations(heads: pd.DataFrame, column: str, surrogate: str = "one layer") -> pd.Series:
    """Return Spearman's correlation of the score with another column over the heads of a layer, by seed.

    It is averaged over layers, without those whose column is constant: so is the first layer's own code, where no
    softmax lets the other keys in.
    """
    found = heads[heads["surrogate"] == surrogate].groupby(["seed", "layer"])
    each = {key: spearmanr(part["score"], part[column]).statistic for key, part in found if part[column].nunique() > 1}
    return pd.Series(each, dtype=float).groupby(level=0).mean()


def head_summary(heads: pd.DataFrame) -> pd.DataFrame:
    """Return correlations with their 95 % interval over seeds and facts of the surrogate, by method and surrogate."""
    rows = {}
    for (method, surrogate), part in heads.groupby(["variant", "surrogate"], sort=False):
        columns = {"drop": "score and fall", "drop_rescaled": "score and fall, others rescaled",
                   "probe": "score and probe"}  # fmt: skip
        found = {name: str(paired("", head_correlations(part, column, surrogate), digits=2))
                 for column, name in columns.items()}  # fmt: skip
        facts = part[["accuracy", "infinite", "participation"]].mean()
        rows[NAMES[method], surrogate] = found | {
            "accuracy of the surrogate": f"{facts['accuracy']:.1f}",
            "of infinite width": f"{facts['infinite']:.1f}",
            "participation": f"{facts['participation']:.2f}",
        }
    return pd.DataFrame(rows).T


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
