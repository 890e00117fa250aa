"""What the first chapter claims, decided by computing."""

from hyla_repro.results.claims import Claim, Outcome
from hyla_repro.results.effects import CONTRADICTED, REPRODUCED
from hyla_repro.results.store import Store
from hyla_repro.results.summary import Results


def claims(store: Store | None) -> list[Claim]:
    """Return the claims of this study."""
    return [
        Claim("identity", "fig1", "facts", "Multi-head attention is a linear hypernetwork, for any normalisation of "
              "the scores.", "exact identity", "largest difference < 1e-12 in float64, every normaliser", identity,
              chance="none", live=True),
    ]  # fmt: skip


def identity(results: Results) -> Outcome:
    """Decide the identity."""
    from hyla_repro.studies.idea.analysis import identity_errors

    worst = identity_errors().max()
    # The digits below the bound depend on the processor, and the report must not.
    if worst < 1e-12:
        return Outcome("below 1e-12", verdict=REPRODUCED)
    return Outcome(f"largest difference {worst:.0e}", verdict=CONTRADICTED)
