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
            answered_by="3-ambiguity-any",
            parameters={"n_features": (1, 4), "problems": (10, 100_000), "seed": SEEDS},
            defaults={"n_features": 4, "problems": 2000, "seed": 0},
        ),
        Chapter("fig4", runs.scaling, answered_by="4-hyla-small"),
        Chapter("figa5", runs.heldout, answered_by="a5-heldout"),
        Chapter("fig5a", runs.codes, answered_by="5a-clusters", analyses=(runs.CODE_PLANE, runs.RULE_DECODING)),
        Chapter("fig5c", runs.heads_and_features, answered_by="5c-one-head"),
        Chapter("fig5e", runs.codes, answered_by="5e-addition", analyses=(runs.MEAN_CODES, runs.CODE_PLANE)),
        Chapter("fig5f", runs.codes, answered_by="5f-decoding", analyses=(runs.RULE_DECODING,)),
        Chapter("whysraven", runs.causes),
        Chapter("tuning", runs.tuning, page=False, section=later("hyla_repro.studies.sraven.controls", "tuning")),
        Chapter("long", runs.long, page=False, section=later("hyla_repro.studies.sraven.controls", "long")),
    ),
    claims=later("hyla_repro.studies.sraven.claims", "claims"),
    main=runs.main,
    kept=runs.main,
    build=runs.sraven,
    reported_minutes=(20.0, 200.0),
)
