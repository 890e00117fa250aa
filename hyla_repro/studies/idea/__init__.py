"""The idea: multi-head attention is a hypernetwork, and HYLA makes the network that it generates non-linear."""

from hyla_repro.lazy import later
from hyla_repro.studies.study import SEEDS, Chapter, Study

IDEA = Study(
    name="idea",
    title="The idea",
    chapters=(
        Chapter(
            "fig1",
            answered_by="identity",
            parameters={"n_heads": (1, 64), "n_tokens": (3, 256), "seed": SEEDS},
            defaults={"n_heads": 4, "n_tokens": 7, "seed": 0},
        ),
        Chapter("figa1", parameters={"d_model": (16, 1024), "seed": SEEDS}, defaults={"d_model": 128, "seed": 0}),
    ),
    claims=later("hyla_repro.studies.idea.claims", "claims"),
)
