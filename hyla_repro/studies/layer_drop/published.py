"""What He et al. (2024) print, and the arithmetic of their tables: memory of the cache, points lost per speed-up."""

from typing import NamedTuple


class Printed(NamedTuple):
    """A row of a table: mean accuracy (%), speed-up, and the ratio that is printed, if one is."""

    average: float
    speedup: float
    ratio: float | None = None


class Drops(NamedTuple):
    """The rows of one model.

    Args:
        layers: of the model.
        average: of the whole model, in percent.
        rows: by what was dropped and how many of it.
    """

    layers: int
    average: float
    rows: dict[tuple[str, int], Printed]


class CacheSize(NamedTuple):
    """A row of the table on memory: of 2048 tokens in 16 bit, whole and after attentions were dropped, in GB."""

    layers: int
    kept: int
    d_kv: int
    batch: int
    whole: float
    after: float


# The main tables: means over ARC-C, BoolQ, HellaSwag, MMLU, OpenBookQA, PIQA, RTE and WinoGrande.
PUBLISHED = {
    "Llama-2-13B": Drops(40, 68.2, {
        ("block", 4): Printed(65.8, 1.11, 0.22), ("block", 8): Printed(60.7, 1.24, 0.31),
        ("mlp", 4): Printed(66.9, 1.04, 0.32), ("mlp", 8): Printed(61.9, 1.08, 0.79),
        ("attn", 4): Printed(68.5, 1.05, -0.05), ("attn", 8): Printed(68.1, 1.13, 0.01),
        ("attn", 16): Printed(66.1, 1.29, 0.07), ("attn", 20): Printed(64.9, 1.40, 0.08),
    }),
    "Mistral-7B": Drops(32, 70.3, {
        ("block", 4): Printed(67.1, 1.14, 0.23), ("block", 8): Printed(58.6, 1.32, 0.37),
        ("mlp", 4): Printed(66.9, 1.03, 1.13), ("mlp", 8): Printed(53.4, 1.06, 2.82),
        ("attn", 4): Printed(69.9, 1.10, 0.04), ("attn", 8): Printed(69.8, 1.23, 0.02),
        ("attn", 12): Printed(67.3, 1.40, 0.08),
    }),
    "Llama-2-70B": Drops(80, 73.9, {
        ("block", 4): Printed(71.0, 1.07, 0.41), ("block", 8): Printed(67.7, 1.14, 0.44),
        ("block", 16): Printed(54.4, 1.30, 0.65), ("block", 32): Printed(49.3, 1.67, 0.37),
        ("mlp", 4): Printed(73.2, 1.04, 0.18), ("mlp", 8): Printed(72.5, 1.05, 0.28),
        ("mlp", 16): Printed(65.9, 1.08, 1.00), ("mlp", 32): Printed(55.7, 1.17, 1.07),
        ("attn", 4): Printed(73.8, 1.06, 0.02), ("attn", 8): Printed(73.7, 1.12, 0.02),
        ("attn", 16): Printed(73.8, 1.21, 0.00), ("attn", 32): Printed(73.8, 1.35, 0.00),
        ("attn", 40): Printed(71.5, 1.48, 0.05), ("attn", 48): Printed(66.9, 1.62, 0.11),
    }),
}  # fmt: skip
# Means over HellaSwag, MMLU, OpenBookQA and WinoGrande alone. The ratio of Llama-3-70B without 40 attentions is printed
# as 0.00.
PUBLISHED_FOUR_TASKS = {
    "Llama-3-8B": Drops(32, 67.6, {
        ("attn", 4): Printed(67.4, 1.07), ("attn", 8): Printed(67.4, 1.16), ("attn", 12): Printed(65.8, 1.26),
        ("attn", 16): Printed(55.4, 1.38), ("attn", 20): Printed(38.6, 1.52),
    }),
    "Llama-3-70B": Drops(80, 75.1, {
        ("attn", 4): Printed(75.2, 1.04), ("attn", 8): Printed(75.1, 1.10), ("attn", 16): Printed(75.0, 1.17),
        ("attn", 32): Printed(75.2, 1.35), ("attn", 40): Printed(73.3, 1.43, 0.00), ("attn", 48): Printed(71.0, 1.55),
    }),
}  # fmt: skip
# Table 4.
PUBLISHED_CACHE = {
    "Mistral-7B": CacheSize(32, 20, 1024, 64, 16, 10), "Llama-3-8B": CacheSize(32, 20, 1024, 64, 16, 10),
    "Llama-2-13B": CacheSize(40, 20, 5120, 32, 52, 26), "Llama-2-70B": CacheSize(80, 40, 1024, 32, 20, 10),
    "Llama-3-70B": CacheSize(80, 40, 1024, 32, 20, 10),
}  # fmt: skip
# Appendix B, Mistral-7B, means over the four tasks after 4, 8 and 12 attentions are dropped by each order.
PUBLISHED_ORDERS = {
    "random": (61.5, 49.6, 39.4), "reverse": (66.9, 66.9, 61.5), "magnitude": (67.0, 66.8, 62.3),
    "cosine": (67.0, 66.9, 64.8),
}  # fmt: skip
# Table 6, Mistral-7B, the same after 4, 8, 12, 16 and 20 modules are dropped, by kind and residual=True or False.
PUBLISHED_RESIDUAL = {
    ("attn", True): (65.0, 65.3, 65.4, 63.4, 62.9), ("attn", False): (39.4, 37.7, 36.8, 32.2, 32.0),
    ("mlp", True): (64.5, 61.9, 55.6, 49.9, 42.1), ("mlp", False): (31.2, 31.1, 31.1, 30.8, 30.9),
}  # fmt: skip
# Figure 9, Mistral-7B, the same by the number of attentions dropped: scored once, and scored again after each.
PUBLISHED_ONE_SHOT = {4: (67.0, 66.5), 8: (66.9, 62.1)}
# LongICLBench's BANKING77, 32k version of Llama-2-7B, mean over 2k to 14k tokens: whole 65.6, without 2, 4, 6 and 8.
PUBLISHED_LONG_CONTEXT = {"attn": (65.4, 61.4, 58.6, 48.0), "mlp": (62.4, 54.6, 38.6, 39.0)}
# What does not agree with the tables' own numbers; our check of them names each.
MISPRINTS = (
    "Llama-2-13B without 4 attentions: the ratio is printed as −0.05, and is −0.06.",
    "Llama-3-70B without 40 attentions: the ratio is printed as 0.00, and is 0.04.",
    "Llama-2-13B's cache is printed as 52 and 26 GB, and is 50 and 25 GiB as the others are counted.",
)
# Values that contradict one another, or the words about them.
INCONSISTENCIES = (
    "Table 6 has 65.0, 65.3 and 65.4 for Mistral-7B without 4, 8 and 12 attentions; the appendix's comparison of "
    "orders has 67.0, 66.9 and 64.8 for the same model and tasks.",
    "The text calls the loss of Llama-2-70B without half of its attentions 2.4 %; it is 2.4 points, 3.2 % of the "
    "score.",
    "Figure 9 calls scoring at every step comparable with scoring once; after 8 drops it is 4.8 points lower.",
)


def speed_degradation_ratio(points: float, speedup: float) -> float:
    """Return the points of accuracy lost for each percent of speed gained: negative where accuracy rises.

    Args:
        points: by how much the mean accuracy fell, in percentage points.
        speedup: time of the whole model divided by that of the smaller one; 1.13 is 13 % faster.

    Raises: ValueError for a speedup of 1 or less, which gains nothing to divide by.
    Source: He et al., equation of the ratio, which speaks of percent; all its values are of points.
    """
    if speedup <= 1:
        raise ValueError(f"speedup={speedup} gains no speed: it must be above 1")
    return points / (100 * (speedup - 1))


def kv_cache_bytes(layers: int, d_kv: int, batch: int, tokens: int, bytes_per_number: int = 2) -> int:
    """Return the memory of keys and values of all layers that have attention, in bytes.

    Args:
        d_kv: width of the keys of a token over all key-value heads.
        bytes_per_number: 2 for 16 bit.

    Source: He et al., table 4; its sizes are GiB, 2**30 bytes.
    """
    return layers * 2 * d_kv * bytes_per_number * batch * tokens
