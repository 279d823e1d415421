# Everything runs in .venv. The first target that needs it creates it. No Docker, no root.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    := $(VENV)/.installed-run
DEV    := $(VENV)/.installed-dev
ARGS   ?=
# Number of test processes: two per core, because they often wait. Each uses about 400 MB with its servers.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(6, 2 * (os.cpu_count() or 1)))')

.DEFAULT_GOAL := help

help:  ## Show all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

up: $(RUN)  ## Run the service; make up ARGS=--demo adds three organisations and traffic
	@exec $(BIN)/creditledger up $(ARGS)

test: $(DEV)  ## Run all tests that need only Python
	$(BIN)/python -m pytest -m "not kafka and not browser" -n $(WORKERS) --dist worksteal --cov --cov-report=term-missing:skip-covered --cov-fail-under=100 $(ARGS)

check: $(DEV)  ## Check format, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)  ## Format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(RUN)  ## Measure the usage path; make bench ARGS=--quick takes a minute
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(RUN)  ## Half an hour of load with killed processes; make soak ARGS="--seconds 180" is shorter
	$(BIN)/python -m benchmarks.soak $(ARGS)

kafka: $(RUN)  ## Run real Apache Kafka (Java and Maven); BROKERS=3 for a cluster
	@exec $(BIN)/python -m infra.embedded.apache_kafka --brokers $(or $(BROKERS),1)

test-browser: $(DEV)  ## Run the tests that need a browser (Chromium)
	$(BIN)/python -m pytest -m browser $(ARGS)

picture: $(DEV)  ## Make the picture of the Credits page that README shows (Chromium)
	PICTURE=docs/images/credits.png $(BIN)/python -m pytest -m browser tests/browser/test_picture.py $(ARGS)

test-kafka: $(DEV)  ## Run the tests that need real Apache Kafka
	$(BIN)/python -m pytest -m kafka -n 2 --dist worksteal $(ARGS)

lock: $(VENV)/.uv  ## Pin the dependencies of pyproject.toml again
	$(VENV)/.uv/bin/uv pip compile pyproject.toml --extra embedded --extra build --upgrade $(LOCK) -o requirements/run.txt
	$(VENV)/.uv/bin/uv pip compile pyproject.toml --all-extras --upgrade $(LOCK) -o requirements/dev.txt

LOCK := --generate-hashes --no-strip-extras --universal --python-version 3.11 --no-emit-index-url --no-header --quiet

clean:  ## Remove .venv and the data of the embedded servers
	rm -rf $(VENV) var

PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-input

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is required: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(RUN): $(BIN)/python requirements/run.txt pyproject.toml
	@echo "Installing Python packages into $(VENV). This takes about a minute."
	$(PIP) --require-hashes -r requirements/run.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(BIN)/python requirements/dev.txt pyproject.toml
	@echo "Installing Python packages into $(VENV). This takes about a minute."
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ $(RUN)

$(VENV)/.uv: $(BIN)/python
	$(PYTHON) -m venv $@ && $@/bin/pip install --quiet uv

.PHONY: help up test check format bench soak kafka test-kafka test-browser picture lock clean
