"""Attention paths: which paths through the heads a network of frozen attention uses (Tiberi et al., 2024)."""

from hyla_repro.lazy import exports, later
from hyla_repro.studies.attention_paths import runs
from hyla_repro.studies.study import Chapter, Study

ATTENTION_PATHS = Study(
    name="attention_paths",
    title="Neighbours",
    chapters=(
        Chapter(
            runs.FIGURE, runs.bridge, answered_by="paths-trained-drop", analyses=(runs.HEADS,), tables=(runs.POINTS,)
        ),
    ),
    claims=later("hyla_repro.studies.attention_paths.claims", "claims"),
)

_HOMES = {
    "inputs": (
        "Prior", "attention_maps", "head_scores", "kernel_alignment", "path_inputs", "path_kernels", "path_names",
        "silence_head", "total_kernel",
    ),
    "theory": ("OrderParameter", "Prediction", "energy", "entropy", "gp_order_parameter", "predict", "solve"),
    "sampling": ("Samples", "effective_weights", "order_parameter_from_weights", "predict_mean",
        "sample_order_parameter",
    ),
    "hidden_markov": ("hidden_markov_chain", "hmm_heads"),
}  # fmt: skip
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names}
)
