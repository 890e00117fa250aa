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
        Chapter("fig2c", runs.scaling, answered_by="2c-main"),
        Chapter("fig2b", runs.latent, answered_by="2b-decoding", analyses=(runs.DECODING,)),
        Chapter("fig2d", runs.latent, answered_by="2d-clusters", analyses=(runs.EMBEDDING,)),
        Chapter("figa3", runs.scaling, answered_by="a3-unknown"),
        Chapter(
            "wide-heads",
            runs.wide_heads,
            page=False,
            section=later("hyla_repro.studies.fuzzy_logic.controls", "wide_heads"),
        ),
    ),
    claims=later("hyla_repro.studies.fuzzy_logic.claims", "claims"),
    main=runs.main,
    kept=runs.main,
    build=runs.fuzzy_logic,
    reported_minutes=(2.0, 3.0),
)
