"""Language: does HYLA lose on text what it gains in composition?"""

from hyla_repro.lazy import later
from hyla_repro.studies.language import runs
from hyla_repro.studies.study import Chapter, Study

LANGUAGE = Study(
    name="language",
    title="Language",
    task=runs.TASK,
    chapters=(
        Chapter("fig6", runs.all_runs, answered_by="6-near"),
        # One model of each method, whose weights are committed: what it writes, and its codes.
        Chapter("letters", runs.shown, analyses=(runs.SAMPLES, runs.LETTER_CODES), page=False),
    ),
    claims=later("hyla_repro.studies.language.claims", "claims"),
    main=runs.main,
    kept=runs.shown,
    build=runs.language,
)
