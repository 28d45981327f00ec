# Every wish is one command; `make help` lists them. Each sets up what it needs by itself.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
SERVER_TESTS := $(addprefix packages/relaybox/tests/integration/,cli consumers local relay telemetry) tests/integration tests/packaging
STAMP := $(VENV)/.synced
PACKAGES := packages/shared-types packages/relaybox apps/backend
# A home that cannot be written (su -m, a service account) must not stop the set-up.
ifeq ($(shell test -w "$$HOME" && echo yes),)
export UV_CACHE_DIR := $(CURDIR)/.relaybox/cache/uv
export RELAYBOX_CACHE_DIR := $(CURDIR)/.relaybox/cache
export PIP_NO_CACHE_DIR := 1
export HOME := $(CURDIR)/.relaybox/home
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every service is a process of its own: without bytecode each would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run demo demo-workspace env test test-parts test-servers test-whole test-all test-postgres-16 test-kafka-3.7 test-lowest-parts test-lowest-whole lint types lock bench bench-compare chaos image mutants sql clean

help: ## List the wishes
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv (every other wish does this by itself)

$(STAMP): requirements.lock $(PACKAGES:%=%/pyproject.toml)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Relaybox needs Python 3.11 or newer; found $$("$(PYTHON)" --version). Set PYTHON=/path/to/python3.11."; exit 1; }
	@mkdir -p .relaybox/home
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@test -x $(BIN)/uv || { echo "Installing uv"; awk '/^uv==/{found=1} found{print} found&&!/\\$$/{exit}' requirements.lock > .relaybox/uv.txt \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .relaybox/uv.txt; }
	@echo "Installing the locked dependencies"
	@$(BIN)/uv pip sync --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(PACKAGES:%=--editable %)
	@touch $@

run: $(STAMP) ## Start the whole product; Ctrl-C stops it
	@exec backend run

# LANGUAGE is also a variable of the environment, which says what messages are in; only the argument counts.
demo: $(STAMP) ## Tell one whole story, to the running product or to one of its own (LANGUAGE=en for English)
	@exec backend demo $(if $(filter command line,$(origin LANGUAGE)),--language $(LANGUAGE))

demo-workspace: $(STAMP) ## Tell the story of a chess club the same way
	@exec backend demo workspace

env: ## Print the running product's settings: eval "$$(make -s env)"
	@test -x $(BIN)/backend || { echo "The product does not run; start it with \`make run\`." >&2; exit 1; }
	@backend env && echo 'export PATH="$(CURDIR)/$(BIN):$$PATH"'

lint: $(STAMP) types ## Check style, types and who imports whom
	@ruff check --quiet .
	@ruff format --check --quiet . || { echo "Not formatted; run: $(BIN)/ruff format"; exit 1; }
	@lint-imports --no-cache | tail -n 3

types: $(STAMP) ## Check the types (basedpyright, strict)
	@basedpyright

test: lint ## Check everything and run all tests but the long ones; takes ARGS for pytest
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory --jobs 3 --output-sync=target test-parts test-servers test-whole
	@coverage combine --quiet
	@coverage report --include='packages/*' --skip-covered --fail-under=90
	@coverage report --include='apps/*' --skip-covered --fail-under=85

# Most of a test is waiting for a server: three runs beside each other, each with servers of its own.
test-parts:
	@coverage run -m pytest -m "not long" packages apps $(SERVER_TESTS:%=--ignore=%) $(ARGS)

test-servers:
	@coverage run -m pytest -m "not long" $(SERVER_TESTS) $(ARGS)

test-whole:
	@coverage run -m pytest -m "not long" tests $(SERVER_TESTS:%=--ignore=%) $(ARGS)

test-all: test $(LOWEST)/.synced ## The same, on other versions too, and the long runs (about an hour)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-postgres-16 test-kafka-3.7
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target test-lowest-parts test-lowest-whole
	@echo "The long runs" && pytest -m long $(ARGS)

test-postgres-16:
	@echo "PostgreSQL 16" && PG_VERSION=16 pytest -m "not long" packages apps $(ARGS)

test-kafka-3.7:
	@echo "Kafka 3.7.0" && KAFKA_VERSION=3.7.0 pytest -m "not long" packages apps $(ARGS)

test-lowest-parts:
	@echo "FastAPI 0.115, Pydantic 2.11" && $(LOWEST)/bin/python -m pytest -m "not long" packages apps $(ARGS)

test-lowest-whole:
	@$(LOWEST)/bin/python -m pytest -m "not long" tests $(ARGS)

# The lowest versions that users may have of what they share with us; all else is resolved to fit.
$(LOWEST)/.synced: requirements.in $(PACKAGES:%=%/pyproject.toml) | $(STAMP)
	@echo "Installing the lowest supported FastAPI and Pydantic"
	@uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@printf 'fastapi==0.115.*\npydantic==2.11.*\n' > $(LOWEST)/lowest.txt
	@uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/lowest.txt --requirement requirements.in \
	  --editable packages/shared-types --editable 'packages/relaybox[http,local,redis]' --editable 'apps/backend[local,llm,chess]'
	@touch $@

bench: $(STAMP) ## Run the short form of every benchmark, or of some (NAMES=)
	@exec python benchmarks run --short $(NAMES)

bench-compare: $(STAMP) ## Run the short benchmarks of another revision and of this tree in turns (REV=, NAMES=, TURNS=)
	@test -n "$(REV)" || { echo "Name a revision: make bench-compare REV=main" >&2; exit 3; }
	@exec python benchmarks compare $(REV) $(NAMES) $(if $(TURNS),--turns $(TURNS))

chaos: $(STAMP) ## Relays under faults on real servers, 2 minutes (MINUTES=, SEED=, DELIVERY=)
	@exec python -m tests.faults.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(DELIVERY),--delivery $(DELIVERY))

image: $(STAMP) ## Build the image and tell both stories to its services (root, buildah, debootstrap)
	@pytest -m long -rs tests/packaging/test_image.py $(ARGS)

mutants: $(STAMP) ## Seed defects into copies of the sources; the suite must notice each (NAMES=)
	@exec python -m tests.mutants $(NAMES)

sql: $(STAMP) ## Generate infrastructure/docker/init/postgres/20-migration-event-sourcing.sql
	@backend migrate sql > infrastructure/docker/init/postgres/20-migration-event-sourcing.sql

lock: ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	  --all-extras $(PACKAGES:%=%/pyproject.toml) requirements.in \
	  --no-emit-package relaybox --no-emit-package relaybox-types --output-file requirements.lock

# As root from a closed home the servers keep theirs elsewhere; moved-to names the place.
clean: ## Remove the environment and the product's data
	@for pointer in $(wildcard .relaybox/data/*/moved-to); do \
	  case "$$(cat $$pointer)" in */relaybox-*) echo "rm -rf $$(cat $$pointer)"; rm -rf "$$(cat $$pointer)";; esac; done
	rm -rf $(VENV) $(LOWEST) .relaybox
