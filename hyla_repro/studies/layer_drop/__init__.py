"""Layer dropping: which attentions and MLPs a trained network can do without (He et al., 2024, "LLM-Drop")."""

from typing import TYPE_CHECKING

from hyla_repro.lazy import exports, later
from hyla_repro.studies.layer_drop import runs
from hyla_repro.studies.study import Chapter, Study

if TYPE_CHECKING:
    from hyla_repro.studies.layer_drop.dropping import (
        best_subsets,
        drop_curve,
        drop_order,
        dropped,
        iterative_drop,
        oracle,
    )
    from hyla_repro.studies.layer_drop.layers import LAYOUTS, find_layers
    from hyla_repro.studies.layer_drop.published import PUBLISHED, kv_cache_bytes, speed_degradation_ratio
    from hyla_repro.studies.layer_drop.scoring import importance, watching

__all__ = [
    "LAYER_DROP", "LAYOUTS", "PUBLISHED", "best_subsets", "drop_curve", "drop_order", "dropped", "find_layers",
    "importance", "iterative_drop", "kv_cache_bytes", "oracle", "speed_degradation_ratio", "watching",
]  # fmt: skip

_NAMES = {
    "dropping": ("best_subsets", "drop_curve", "drop_order", "dropped", "iterative_drop", "oracle"),
    "scoring": ("importance", "watching"),
    "layers": ("LAYOUTS", "find_layers"),
    "published": ("PUBLISHED", "kv_cache_bytes", "speed_degradation_ratio"),
}
__getattr__, __dir__ = exports(
    __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
)

LAYER_DROP = Study(
    name="layer_drop",
    title="Dropping layers",
    chapters=(Chapter("drop", runs.all_runs, answered_by="drop-attention", analyses=(runs.SCORES, runs.CURVES)),),
    claims=later("hyla_repro.studies.layer_drop.claims", "claims"),
    along=runs.along,
)
