"""Fuzzy logic functions: does attention compose what it has learned, and does its code say of what?"""

from hyla_repro.lazy import later
from hyla_repro.studies.fuzzy_logic import runs
from hyla_repro.studies.study import SEEDS, Chapter, Study

FUZZY_LOGIC = Study(
    name="fuzzy_logic",
    title="Fuzzy logic",
    task=runs.TASK,
    chapters=(
        Chapter(
            "fig2a",
            parameters={"heldout_fraction": float, "seed": SEEDS},
            defaults={"heldout_fraction": 0.7, "seed": 0},
        ),
        Chapter("fig2c", runs.scaling),
        Chapter("fig2b", runs.latent, analyses=(runs.DECODING,)),
        Chapter("fig2d", runs.latent, analyses=(runs.EMBEDDING,)),
        Chapter("figa3", runs.scaling),
    ),
    claims=later("hyla_repro.studies.fuzzy_logic.claims", "claims"),
    main=runs.main,
    kept=runs.main,
    build=runs.fuzzy_logic,
    reported_minutes=(2.0, 3.0),
)
