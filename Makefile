# Every target stands on a virtual environment of its own in .venv, made once and again only when what it needs changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -c constraints.txt
TESTS ?= tests
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test check format proto bench bench-federation bench-compression bench-edge clean

help: ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.ready-demo ## run the whole loop on real data: ten devices, five minutes at most
	@$(BIN)/fogline demo

# Tests start hundreds of processes: none of them should compile again what the last one has compiled.
test: $(VENV)/.ready-dev ## run all tests, on a real Redis, a real PostgreSQL and real processes
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

check: $(VENV)/.ready-dev ## lint, types, import contracts, generated code and pages, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/proto.py --check
	$(BIN)/python scripts/compose.py
	$(BIN)/python scripts/error_codes.py
	$(BIN)/python scripts/cli_reference.py --check
	$(BIN)/python scripts/figures.py --check

format: $(VENV)/.ready-dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.ready-dev ## generate the protobuf code anew
	$(BIN)/python scripts/proto.py

bench: $(VENV)/.ready-dev ## measure every figure of the loop beside its peer or limit (about half an hour)
	$(BIN)/python benchmarks/run.py

bench-federation: $(VENV)/.ready-dev ## measure federated training: rules, attacks, dropouts, memory (hours)
	$(BIN)/python benchmarks/run.py federation

bench-compression: $(VENV)/.ready-dev ## measure students beside teachers, every compression method, deltas, storage, trust (an hour)
	$(BIN)/python benchmarks/run.py compression

bench-edge: $(VENV)/.ready-dev ## measure a device's local serving beside other servers, and its swaps (a quarter of an hour)
	$(BIN)/python benchmarks/run.py edge edge.serving edge.swap

clean: ## remove the environment and everything a run left behind
	rm -rf $(VENV) .fogline report.json report.html benchmarks/.venvs

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
	  { echo "Fogline needs Python 3.11 or 3.12; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras. `dev` contains `demo`, so it serves both.
$(VENV)/.ready-demo: pyproject.toml constraints.txt | $(BIN)/python
	@if [ $(VENV)/.ready-dev -nt pyproject.toml ] && [ $(VENV)/.ready-dev -nt constraints.txt ]; then :; else \
	  echo "Installing Fogline with its demo into $(VENV) (about 1.5 GB, once) ..."; $(PIP) -e '.[demo]'; fi
	@touch $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Fogline with its development tools into $(VENV) (about 1.7 GB, once) ..."
	@$(PIP) -e '.[dev]'
	@touch $@
