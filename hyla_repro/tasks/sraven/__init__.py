"""SRAVEN: problems, a solver that finds every answer, fixed evaluation sets, and problems as text."""

from hyla_repro.tasks.sraven.rules import RULES
from hyla_repro.tasks.sraven.task import SPLITS, SRaven, SRavenBatch

__all__ = ["RULES", "SPLITS", "SRaven", "SRavenBatch"]
