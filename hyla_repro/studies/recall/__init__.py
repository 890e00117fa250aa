"""Recall in context: which attention finds the value that went with a key, and of how many pairs?"""

from hyla_repro.lazy import later
from hyla_repro.studies.recall import runs
from hyla_repro.studies.study import Chapter, Study

RECALL = Study(
    name="recall",
    title="Recall",
    task=runs.TASK,
    chapters=(Chapter("mqar", runs.all_runs, answered_by="recall-hyla"),),
    claims=later("hyla_repro.studies.recall.claims", "claims"),
    build=runs.mqar,
)
