# The recipes of the project. Needs Python 3.11+, make and a package registry; uses uv when it is there.
#   make demo | test | test-fast | setup | check | bench | schemas | lock          ARGS="…" is passed on
#   make test        every test, with real servers: under ten minutes on two cores
#   make test-fast   every test that needs no server, the long law suites sampled: under one minute on two cores

SHELL := /bin/bash
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUITABLE := import sys; sys.exit(sys.version_info < (3, 11))
# The first of these that is 3.11 or later makes the environment. PYTHON=… overrules the search.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUITABLE)' >/dev/null 2>&1 && { echo $$python; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast setup check bench schemas lock

help:
	@sed -n '1,4p' Makefile

demo: $(STAMP)
	@$(BIN)/cdc-merge demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python tests/install_extras.py
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal -m "not servers and not slow" $(ARGS)

setup: $(STAMP)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m bench $(ARGS)

schemas: $(STAMP)
	$(BIN)/python -m cdc_merge.cli.schema_export schemas

# One lock for uv and pip: exact versions and digests, no addresses. Needs uv; only maintainers call it.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --generate-hashes --no-annotate --no-emit-index-url \
		--no-emit-find-links --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

# Made again only when the lock or the project's own metadata change; an interrupted install leaves no stamp.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "cdc-merge needs Python 3.11 or later: install it, or name it with make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@$(PYTHON) -c '$(SUITABLE)' || { echo "$(PYTHON) is older than 3.11: install a later one, or name it with make PYTHON=/path/to/python3.11." >&2; exit 1; }
	@if command -v uv >/dev/null 2>&1; then \
		echo "Installing the locked packages into $(VENV) with uv" >&2; \
		{ $(BIN)/python -c '$(SUITABLE)' 2>/dev/null || uv venv --quiet --clear --python $(PYTHON) $(VENV); } && \
		uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
		echo "Installing the locked packages into $(VENV) with pip" >&2; \
		{ $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	fi || { echo "The packages could not be installed. On Debian and Ubuntu, python3 -m venv needs: apt-get install python3-venv" >&2; exit 1; }
	@touch $@
