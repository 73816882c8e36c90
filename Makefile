# Everything happens inside this checkout: the environment in .venv, runs in runs/, caches beside the code.
PYTHON ?= python3
VENV := .venv
SCENARIO ?= ieee123-day
SHELL := /bin/bash

export PIP_CACHE_DIR := $(CURDIR)/$(VENV)/pip-cache
export TMPDIR := $(CURDIR)/$(VENV)/tmp
export PYTHONSAFEPATH := 1
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: run test lint type bench clean

run: $(VENV)/ready
	$(VENV)/bin/voltier run $(SCENARIO)

test: $(VENV)/oracles lint type
	$(VENV)/bin/pytest -n 2 --dist loadfile

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

type: $(VENV)/ready .typing
	$(VENV)/bin/mypy -p voltier.grid -p voltier.market -p voltier.agents

bench: $(VENV)/ready
	for file in benchmarks/bench_*.py; do $(VENV)/bin/python $$file || exit 1; done

# mypy does not follow the editable install's mapping; this git-ignored view of links shows it the rooms.
.typing:
	mkdir -p .typing/voltier
	for room in grid market agents scenarios federates; do ln -sfn ../../$$room .typing/voltier/$$room; done

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voltier needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	mkdir -p "$(TMPDIR)"
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(VENV)/bin/voltier doctor
	touch $@

# Independent solvers and simulators that tests compare with; a run needs none of them.
$(VENV)/oracles: $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,oracles,bulk]'
	touch $@

clean:
	rm -rf $(VENV) .typing .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find grid market agents scenarios federates -name __pycache__ -prune -exec rm -rf {} +
