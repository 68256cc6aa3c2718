# Copyright 2026 The residual_rl_ros authors
# SPDX-License-Identifier: Apache-2.0
#
# make demo   fine-tune a shipped base policy through three ROS 2 processes (about 12 minutes)
# make test   the whole test suite
# make lint   ruff and mypy
# make docs   the site, in docs/_build/html; a warning is an error
# Each makes the environment .venv when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_ARGS ?=

.PHONY: setup demo test lint docs format clean

setup: $(READY)

$(READY): requirements.lock setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo 'error: $(PYTHON) is older than 3.10; call make PYTHON=python3.11'; exit 2; }
	$(PYTHON) -m venv $(VENV)
ifdef ROS_DISTRO
	@echo 'ROS 2 $(ROS_DISTRO) is sourced: the ROS wheels are left out and your ROS is used.'
	@echo 'For a robot, build the package with rosdep and colcon instead; see README.md, "With ROS 2".'
	grep -v '^ros-' requirements.lock > $(VENV)/requirements.txt
else
	cp requirements.lock $(VENV)/requirements.txt
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)
	$(BIN)/residual-rl demo $(DEMO_ARGS)

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.docs-ready: $(READY) requirements/docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/docs.txt
	@touch $@

docs: $(VENV)/.docs-ready
	$(BIN)/python docs/_ext/generated.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo 'open docs/_build/html/index.html'

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build docs/api docs/reference/generated
