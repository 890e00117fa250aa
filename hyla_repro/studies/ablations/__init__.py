"""Both tasks: what each part of HYLA is worth, and whether models whose codes tell more compose better."""

from hyla_repro.lazy import later
from hyla_repro.studies.ablations import runs
from hyla_repro.studies.study import Chapter, Study

ABLATIONS = Study(
    name="ablations",
    title="Both tasks",
    chapters=(
        Chapter("tablea1", runs.table_a1, answered_by="a1-sraven-main"),
        Chapter(
            "headline", runs.headline, page=False, section=later("hyla_repro.studies.ablations.controls", "headline")
        ),
        # Its tables are those of fig2b and fig5f, each computed for the runs of its own task.
        Chapter("decodability", runs.codes, answered_by="decodability"),
        Chapter("seeds", runs.seed_parts, page=False, section=later("hyla_repro.studies.ablations.controls", "seeds")),
        Chapter("dropout", runs.dropout, page=False, section=later("hyla_repro.studies.ablations.controls", "dropout")),
    ),
    claims=later("hyla_repro.studies.ablations.claims", "claims"),
)
