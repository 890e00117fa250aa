"""Experiments become finished runs: stacks, the deterministic and resumable loop, plans, provenance."""
