# The whole interface of the project; `make help` lists it, CI and CONTRIBUTING.md use the same targets.
# Everything runs in .venv, which is made on first use and again whenever requirements.lock changes.

PYTHON ?= python3
# Installed only where PYTHON has no torch >= 2.6 of its own: an existing build suits its machine's GPU, or lack of one.
TORCH ?= torch==2.13.0
# Time series as text files in a wheel, of which nothing is imported: without its dependencies, which need other versions.
SERIES := aeon==1.6.0
PRESET ?= smoke
FIGURE ?= all
# More arguments for pytest, such as ARGS="-m slow".
ARGS ?=
UV ?= uv

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := .venv/.installed

.DEFAULT_GOAL := book
.DELETE_ON_ERROR:
.PHONY: book pdf test test-browser test-slurm check reproduce figures pictures linkcheck check-myst dist clean lock setup help

book: $(READY)  ## Build the book from the committed results (the default)
	$(BIN)/jupyter-book build book/ -W -n --keep-going

test: $(READY)  ## Run the tests that need neither a GPU nor much time; ARGS="-m slow" for the others
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(ARGS)

test-browser: $(READY)  ## Play with the pages in Chromium; says what is missing
	$(BIN)/python -m pytest -m browser -p no:xdist $(ARGS) tests/browser

# Its daemons are the tests' own and end with them; apt-get only brings their programs.
test-slurm: $(READY)  ## Run the tests on a real Slurm, on Debian or Ubuntu as root; installs slurm-wlm and munge
	@command -v slurmctld slurmd munged sbatch unshare > /dev/null || \
		{ apt-get update -qq && apt-get install -qq --yes slurm-wlm munge util-linux > /dev/null; } || \
		{ echo 'These tests need root and Slurm: apt-get install slurm-wlm munge' >&2; exit 1; }
	$(BIN)/python -m pytest -m slurm tests/cluster

check: $(READY)  ## Check style, types, and that imports run one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reproduce: $(READY)  ## Train what is missing for FIGURE at PRESET (smoke, laptop, paper) and draw it
	$(BIN)/hyla-repro reproduce $(FIGURE) --preset $(PRESET)

figures: reproduce  ## The same as reproduce

pictures: book  ## Copy the pictures of the book that look different over the committed ones
	$(BIN)/hyla-repro pictures

pdf: book  ## Print the book into one file of A4 pages, book/_build/hyla-repro.pdf; needs Chromium
	$(BIN)/hyla-repro pdf

linkcheck: $(READY)  ## Follow the links of the book; needs the network
	$(BIN)/jupyter-book build book/ --builder linkcheck

check-myst: $(READY)  ## Let mystmd, the engine of jupyter-book 2, parse every page; needs Node.js
	$(BIN)/python tests/book/check_myst.py

# The wheel is made from the sdist, as anyone else would make it.
dist: book  ## Put the wheel, the sdist and the built book into dist/
	rm -rf dist
	$(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")'
	$(PIP) wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	$(BIN)/python -c 'from shutil import make_archive; make_archive("dist/hyla-repro-book", "zip", "book/_build/html")'

clean:  ## Remove the built book, so that the next one is made from nothing
	rm -rf book/_build

setup: $(READY)  ## Only make .venv

# Two stamps, each written last, so that no half-made environment is ever trusted: a new lock makes .venv anew,
# an edited pyproject.toml only installs the package again.
.venv/.locked: requirements.lock
	@"$(PYTHON)" -c '$(NEEDS_PYTHON)'
	"$(PYTHON)" -m venv --clear .venv
	$(PIP) install --require-hashes -r requirements.lock
# The machine's own packages are let in after the lock, behind it on the path, and only if they bring torch.
	"$(PYTHON)" -m venv --without-pip --system-site-packages .venv
	@$(BIN)/python -c '$(HAS_TORCH)' || { \
		echo 'This Python has no torch >= 2.6: installing $(TORCH)' && \
		"$(PYTHON)" -m venv --without-pip .venv && $(PIP) install '$(TORCH)' && $(PIP) check; }
	touch $@

$(READY): .venv/.locked pyproject.toml
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(PIP) install --no-deps '$(SERIES)'
	touch $@

define NEEDS_PYTHON
import sys; sys.version_info >= (3, 11) or sys.exit("hyla-repro needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": give one with make PYTHON=...")
endef

define HAS_TORCH
from importlib.metadata import distributions; versions = [d.version for d in distributions(name="torch")] or ["0.0"]; raise SystemExit(tuple(map(int, versions[0].split(".")[:2])) < (2, 6))
endef

# Both files keep what people wrote at their top, and every version that still fits; UPGRADE=--upgrade for newer ones.
lock:  ## Write the versions in requirements.lock and environment.yml again (needs uv)
	cp requirements.lock requirements.lock.new
	$(UV) pip compile pyproject.toml --quiet --extra book --extra language --extra cluster --extra dev --universal --generate-hashes --no-emit-package torch \
		--no-header --no-emit-index-url --no-emit-find-links $(UPGRADE) --output-file requirements.lock.new
	{ sed '/^$$/,$$d' requirements.lock; echo; cat requirements.lock.new; } > requirements.lock.tmp
	{ sed '/# requirements.lock:$$/q' environment.yml; \
		sed -n 's/^\([a-z].*==.*\) \\$$/      - "\1"/p' requirements.lock.tmp; } > environment.yml.tmp
	mv requirements.lock.tmp requirements.lock
	mv environment.yml.tmp environment.yml
	rm requirements.lock.new

help:  ## List these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
