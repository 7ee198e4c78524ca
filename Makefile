# Everything sets itself up: `make demo` and `make test` work in a fresh clone.
#   make PYTHON=python3.12 test     another interpreter (3.10 or newer)
#   make VENV=.venv312 test         another virtual environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint types layers unit coverage bench-quick docs wheel clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

venv: $(READY) ## make the virtual environment and install p2pdist with its development tools

# `editable_mode=compat` puts the tree itself on the path: only so does twistd find the plugin
# of an editable install. pip learned the option in 22.1.
$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo 'sudo apt-get install -y python3-venv'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo 'p2pdist needs Python 3.10 or newer: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip >= 22.1'
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@

demo: $(READY) ## three nodes on this machine find each other and pass a file on
	$(BIN)/p2pdist demo

test: $(READY) ## everything a change must pass; the last line counts
	$(BIN)/python tools/gate.py

lint: $(READY) ## ruff: rules and format
	$(BIN)/python tools/gate.py lint format

types: $(READY) ## mypy, strict
	$(BIN)/python tools/gate.py types

layers: $(READY) ## import-linter: who may import whom
	$(BIN)/python tools/gate.py layers

unit: $(READY) ## the tests with branch coverage
	$(BIN)/python tools/gate.py unit coverage

coverage: $(READY) ## report of the last `make unit` or `make test`
	$(BIN)/coverage report

bench-quick: $(READY) ## every benchmark once, small
	$(BIN)/python benchmarks/run.py --quick

# Sphinx is asked for only here. Building itself needs no network.
$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs ## the documentation site into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html

wheel: $(READY) ## build source archive and wheel into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove what make made
	rm -rf $(VENV) build dist docs/_build docs/generated *.egg-info .coverage .coverage.* _trial_temp* \
	    .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo
	find p2pdist twisted tools -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
