# Two commands do all of their own set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test lint check gpu clean

quickstart: $(STAMP)
	$(BIN)/python examples/quickstart.py --output quickstart

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

# The tests and benchmarks that need a GPU, in one file and one table; without a GPU it says so.
gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py --output benchmarks/results/gpu.json

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trajplan needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo 'Setting up $(VENV), once: a minute or more, as long as downloading PyTorch and the simulators takes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build quickstart
