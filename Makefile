# The only door. `make` lists the targets; everything but Python >= 3.11 and make is fetched by `setup`.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests start dozens of processes: without byte code caches each compiles its imports anew.
unexport PYTHONDONTWRITEBYTECODE

# make demo on recordings: make demo DATA=file.npz LABEL=y SOURCE=device=1-5 TARGET=device=6-12
DEMO_OPTIONS := $(if $(DATA),--data $(DATA)) $(if $(LABEL),--label $(LABEL)) $(if $(SOURCE),--source $(SOURCE)) \
  $(if $(TARGET),--target $(TARGET)) $(if $(GROUP),--group $(GROUP)) $(if $(TRANSFORM),--transform $(TRANSFORM))

.PHONY: help setup lock demo test test-all lint rooms check chaos bench up down clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## virtual environment with the locked packages

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "setup: no '$(PYTHON)' found; install Python 3.11 or newer, or: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: Python 3.11 or newer is needed, $$($(PYTHON) -V) was found; use: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "setup: this Python has no ensurepip; on Debian: apt install python3-venv" >&2; exit 2; }
	@echo "setup: installing locked packages into $(VENV) (about a minute the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)" \
	  || { echo "setup: could not install uv; is the package index reachable?" >&2; exit 2; }
	@# Compiled here, once: else each of four test processes compiles what it imports first.
	@$(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

lock: $(READY) ## refresh requirements.lock to the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --all-extras --no-header -o requirements.lock pyproject.toml

demo: $(READY) ## the story end to end; on recordings with DATA= LABEL= SOURCE= TARGET=
	@$(BIN)/acclimate demo $(DEMO_OPTIONS)

# A test marked `long` stands for a kind of check that `make test` makes with another test, once; one marked `chaos`
# repeats kills for minutes.
# Many tests wait for a broker or a process: four at a time keep two cores busy.
test: $(READY) ## every kind of check once, on real Kafka and MLflow: in 8 minutes
	@$(BIN)/python -m pytest -n 4 --dist loadgroup

test-all: $(READY) ## test and the tests marked long: what CI runs
	@$(BIN)/python -m pytest -n 4 --dist loadgroup -m 'not chaos'

lint: $(READY) ## format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

rooms: $(READY) ## draw which room of the code imports which
	@$(BIN)/python -m tests.support.rooms

check: lint ## lint, fast tests, doctests and exported schemas: before every commit
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not kafka and not mlflow and not long and not chaos' --doctest-modules --pyargs tests acclimate

chaos: $(READY) ## repeated kills, for minutes
	@$(BIN)/python -m pytest -m chaos --timeout 1800 -s

bench: $(READY) ## time per record and window against the floor, as JSON
	@$(BIN)/python -m benchmarks.pipeline

up: $(READY) ## start Kafka, MLflow and the controller on this machine; they stay
	@$(BIN)/acclimate up

down: $(READY) ## stop them
	@$(BIN)/acclimate down

clean: ## remove everything that was made
	rm -rf $(VENV) out .acclimate .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
