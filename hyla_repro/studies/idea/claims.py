"""What the first chapter claims, decided by computing."""

from hyla_repro.results.claims import Claim, Outcome, exact
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

    return exact(identity_errors().max(), 1e-12)
