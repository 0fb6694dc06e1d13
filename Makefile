# `make help` lists the targets. Everything lives in $(VENV); nothing is installed outside it.

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
ASK ?= What is the capital of France?
ONCE ?=
UP_FLAGS ?=
PYTEST_FLAGS ?=
PEERS_FLAGS ?=
COMMITS ?=

# Through the environment: a question may have quotes, dollars and backticks.
export ASK

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
BUILD_INPUTS := setup.py pyproject.toml constraints.txt $(wildcard neurond/kernels/csrc/*)

.DEFAULT_GOAL := help
.PHONY: help run setup check test test-clients format format-check lint type imports test-unit bench bench-compare bench-peers rpm clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed  ## Start the embedded fleet, ask it ASK, stay up (ONCE=1: exit after the answer)
	@$(BIN)/cortex up --ask="$$ASK" $(if $(ONCE),--once) $(UP_FLAGS)

setup: $(VENV)/.installed-dev  ## Make $(VENV) with everything that development needs

check: format-check lint type imports test-unit  ## The quick gate: format, lint, types, import rules, unit tests

test: check  ## Everything: the quick gate, then integration, end-to-end and packaging tests
	-$(BIN)/python -m tests.fakes.model_cache
	-$(BIN)/python -m tests.fakes.schema_suite
	$(BIN)/pytest tests/integration tests/e2e tests/packaging tests/gpu $(PYTEST_FLAGS)

test-clients: setup  ## Install Claude Code, codex, open-webui and others aside and run them (needs a network and npm)
	PIP_FLAGS="$(PIP_FLAGS)" $(BIN)/pytest tests/clients -o faulthandler_timeout=0 $(PYTEST_FLAGS)

format: setup  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .
	$(BIN)/codespell

type: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

test-unit: setup
	$(BIN)/pytest tests/unit -n auto $(PYTEST_FLAGS)

bench: setup  ## Measure engine and gateway on this machine (see docs/benchmarks.md)
	$(BIN)/pytest bench --benchmark-only --benchmark-autosave -p no:randomly --timeout 900 -o faulthandler_timeout=0 $(PYTEST_FLAGS)

bench-compare: setup  ## Set what `make bench` found at some commits side by side (COMMITS="A B"; all without it)
	$(foreach commit,$(or $(COMMITS),*),$(if $(wildcard .benchmarks/*/*_$(commit)*.json),,\
		$(error cannot compare: .benchmarks has nothing of $(commit); run make bench there)))
	$(BIN)/pytest-benchmark compare $(foreach commit,$(COMMITS),'*_$(commit)') \
		--group-by=fullname --sort=name --columns=min,median,iqr,rounds

bench-peers: setup  ## Measure other servers and ours side by side (PEERS_FLAGS=--help)
	PIP_FLAGS="$(PIP_FLAGS)" $(BIN)/python -m bench.peers $(PEERS_FLAGS)

rpm: setup  ## Build the RPMs into dist/rpm (needs rpmbuild)
	rpm/build.sh dist/rpm

clean:  ## Remove everything that was built; models and state stay
	rm -rf neurond/kernels/*.so $(VENV)/.installed*
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python $(BUILD_INPUTS)
	$(PIP) -e '.[gateway,node]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[gateway,node,dev]'
	@touch $@
