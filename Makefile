# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# make demo   fine-tune a shipped base policy through three ROS 2 processes (about 12 minutes)
# make test   the whole gate, of the optional parts too: every test but the long runs
# make test-fast   the loop while you work: without ROS processes, in a minute or two
# make test-slow   the long runs, by which a rebuild changes no number
# make lint   ruff, mypy, import-linter, codespell, mdformat
# make docs   the site, in docs/_build/html; a warning is an error
# make bench  the libraries that `residual-rl bench learner` measures against
# make lock   the pinned versions of requirements/, from setup.py
# HASHED=1    with any of these: every file that is installed must have the digest of requirements/
# Each makes the environment .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
OPTIONAL := $(VENV)/.optional
UNUSED := /site-packages/(.*/tests|ray/(data|llm|rllib|serve|train|tune))/
DEMO_ARGS ?=
LOCKS := requirements$(if $(HASHED),/hashed)
DOCUMENTS := $(filter-out docs/api/% docs/lab/% docs/reference/parameters.md, \
    $(wildcard *.md sim/*.md docs/*.md docs/*/*.md))

.PHONY: setup demo test test-fast test-slow lint docs format clean bench lock

setup: $(READY)

$(READY): requirements/core.txt requirements/dev.txt requirements/ubuntu-24.04.txt setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "error: $$($(PYTHON) --version 2>&1), expected 3.11 to 3.13;" \
	        'name one with make PYTHON=python3.12'; exit 2; }
ifdef ROS_DISTRO
	@echo 'ROS 2 $(ROS_DISTRO) is sourced: it is used, and the ROS wheels are left out.'
	@echo 'To build the package with colcon instead, see docs/how-to/install.md.'
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(PIP) --no-compile -r requirements/ubuntu-24.04.txt -r $(LOCKS)/dev.txt
else
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile -r $(LOCKS)/core.txt -r $(LOCKS)/dev.txt
endif
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $(READY)

$(OPTIONAL): $(READY) requirements/optional.txt requirements/metaworld.txt
	$(PIP) --no-compile -r $(LOCKS)/optional.txt
	@# It pins an older MuJoCo than ours, and runs on ours.
	$(PIP) --no-compile --no-deps -r $(LOCKS)/metaworld.txt
	@# Python compiles what is used as it goes; hundreds of processes of tests would do it at once.
	@# Some packages hold templates that are no Python; those stay as they are.
	$(BIN)/python -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib > /dev/null || true
	@touch $(OPTIONAL)

$(VENV)/.lint: $(READY) requirements/lint.txt
	$(PIP) -r $(LOCKS)/lint.txt
	@touch $@

bench: $(OPTIONAL)
	$(PIP) -r $(LOCKS)/bench.txt

lock:
	requirements/lock.sh

demo: $(READY)
	$(BIN)/residual-rl demo $(DEMO_ARGS)

# Four workers for two cores: robots wait longer than they compute. Each test or group of tests
# goes to the next free worker, in the order of test/conftest.py.
PYTEST := $(BIN)/python -m pytest -n 4 --no-loadscope-reorder

# Other processes of the machine can be in the way of a robot in real time: what has failed beside
# other tests is run once more, alone.
test: $(OPTIONAL)
	$(PYTEST) -m 'not slow' || \
	    $(BIN)/python -m pytest -m 'not slow' --last-failed --last-failed-no-failures none

test-fast: $(OPTIONAL)
	$(PYTEST) -m 'not slow and not ros'

test-slow: $(OPTIONAL)
	$(PYTEST) -m slow

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/mdformat --check $(DOCUMENTS)

$(VENV)/.docs-ready: $(READY) requirements/docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCKS)/docs.txt
	@touch $@

docs: $(VENV)/.docs-ready
	$(BIN)/python docs/_ext/generated.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mdformat $(DOCUMENTS)

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/api docs/reference/generated
