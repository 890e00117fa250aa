"""`python -m hyla_repro` is `hyla-repro`."""

from hyla_repro.cli import main

main()
