"""Attention as a regression: heads as support-vector regressions, with centred keys (BN) and fewer keys (SH)."""

from hyla_repro.lazy import later
from hyla_repro.studies.neighbours import SERIES, series
from hyla_repro.studies.primal_dual import runs
from hyla_repro.studies.study import Chapter, Study

PRIMAL_DUAL = Study(
    name="primal_dual",
    title="Attention as a regression",
    task=SERIES,
    chapters=(
        Chapter("primal", runs.all_runs, answered_by="primal-bn-series"),
        Chapter("primal-heads", runs.with_distances, analyses=(runs.DISTANCES,), page=False),
    ),
    claims=later("hyla_repro.studies.primal_dual.claims", "claims"),
    build=series,
)
