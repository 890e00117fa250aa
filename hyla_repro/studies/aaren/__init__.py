"""Attention as an RNN: an attention whose query is a learned token, beside causal softmax attention and HYLA."""

from hyla_repro.lazy import later
from hyla_repro.studies.aaren import runs
from hyla_repro.studies.study import Chapter, Study

AAREN = Study(
    name="aaren",
    title="Attention as an RNN",
    chapters=(
        Chapter("aaren", runs.all_runs, answered_by="aaren-query-fuzzy-logic"),
        # Some of its models, whose codes are taken apart.
        Chapter("aaren-codes", runs.shown, analyses=(runs.CODES, runs.MATRIX), page=False),
    ),
    claims=later("hyla_repro.studies.aaren.claims", "claims"),
)
