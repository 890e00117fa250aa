"""SRAVEN: the same questions on symbolic Raven's matrices, with data, width and depth varied."""

from hyla_repro.lazy import later
from hyla_repro.studies.sraven import runs
from hyla_repro.studies.study import SEEDS, Chapter, Study

SRAVEN = Study(
    name="sraven",
    title="SRAVEN",
    task=runs.TASK,
    chapters=(
        Chapter(
            "fig3",
            parameters={"n_features": (1, 4), "problems": (10, 100_000), "seed": SEEDS},
            defaults={"n_features": 4, "problems": 2000, "seed": 0},
        ),
        Chapter("fig4", runs.scaling),
        Chapter("figa5", runs.heldout),
        Chapter("fig5a", runs.codes, analyses=(runs.CODE_PLANE, runs.RULE_DECODING)),
        Chapter("fig5c", runs.heads_and_features),
        Chapter("fig5e", runs.codes, analyses=(runs.MEAN_CODES, runs.CODE_PLANE)),
        Chapter("fig5f", runs.codes, analyses=(runs.RULE_DECODING,)),
        Chapter("tuning", runs.tuning, page=False, section=later("hyla_repro.studies.sraven.controls", "tuning")),
        Chapter("long", runs.long, page=False, section=later("hyla_repro.studies.sraven.controls", "long")),
    ),
    claims=later("hyla_repro.studies.sraven.claims", "claims"),
    main=runs.main,
    kept=runs.main,
    build=runs.sraven,
    reported_minutes=(20.0, 200.0),
)
