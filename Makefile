# Run `make help` for all targets. Each target sets up what it needs.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
PYTHONS := 3.12 3.13 3.14
# Test processes in parallel, each with its own servers; tests mostly wait for servers.
WORKERS ?= 3
PYTEST := python -m pytest --numprocesses $(WORKERS)
COVERAGE := $(CURDIR)/.relaybox/coverage
UNIT_TESTS := $(wildcard packages/*/tests/unit apps/*/tests/unit) tests/unit
STAMP := $(VENV)/.synced
PACKAGES := packages/types packages/relaybox packages/shared-types apps/backend
# The set-up must work with a home directory that is not writable (su -m, a service account).
ifeq ($(shell test -w "$$HOME" && echo yes),)
export UV_CACHE_DIR := $(CURDIR)/.relaybox/cache/uv
export RELAYBOX_CACHE_DIR := $(CURDIR)/.relaybox/cache
export PIP_NO_CACHE_DIR := 1
export HOME := $(CURDIR)/.relaybox/home
endif
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Every service is a separate process; without bytecode each would compile all its imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run demo demo-guided demo-workspace env check unit test measured test-slow test-all test-pgbouncer test-versions test-postgres-16 test-kafka-3.7 test-lowest test-pythons lint types lock bench bench-compare chaos image mutants sql guarantees reference clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install everything into .venv (every other target does this when needed)

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

# LANGUAGE is also an environment variable, for the language of messages; only the argument of make is used.
demo: $(STAMP) ## Run a whole Genesis session on the running product, or on a temporary one (LANGUAGE=en)
	@exec backend demo $(if $(filter command line,$(origin LANGUAGE)),--language $(LANGUAGE))

demo-guided: $(STAMP) ## Run a Genesis session with a guided run in the same way (LANGUAGE=en)
	@exec backend demo guided $(if $(filter command line,$(origin LANGUAGE)),--language $(LANGUAGE))

demo-workspace: $(STAMP) ## Run the demo of a chess club in the same way
	@exec backend demo workspace

env: ## Print the running product's settings: eval "$$(make -s env)"
	@test -x $(BIN)/backend || { echo "The product is not running; start it with \`make run\`." >&2; exit 1; }
	@backend env && echo 'export PATH="$(CURDIR)/$(BIN):$$PATH"'

lint: $(STAMP) types ## Check style, types and imports between packages
	@ruff check --quiet .
	@ruff format --check --quiet . || { echo "Not formatted; run: $(BIN)/ruff format"; exit 1; }
	@contracts="$$(lint-imports --no-cache)" || { echo "$$contracts"; exit 1; }

types: $(STAMP) ## Check the types (basedpyright, strict)
	@basedpyright

check: $(STAMP) ## Check format, types and imports, and run the unit tests (under a minute)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint unit

unit: $(STAMP)
	@$(PYTEST) --quiet $(UNIT_TESTS) $(ARGS)

test: $(STAMP) ## Check everything and run all tests except the slow ones (under ten minutes; ARGS= for pytest)
	@$(MAKE) --no-print-directory --jobs 2 lint measured
	@for part in packages:90 apps:85; do name=$(COVERAGE)/$${part%:*}; \
	  slipcover --branch --skip-covered --fail-under $${part#*:} --out $$name.json --merge $$name.gw*.json || exit 1; done

measured: $(STAMP)
	@rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)
	@COVERAGE_DIR=$(COVERAGE) $(PYTEST) -m "not slow and not long" $(ARGS)

test-slow: $(STAMP) ## Run the slow tests (faults, packaging, TLS, alert rules) and the short benchmarks
	@$(PYTEST) -m "slow and not long" $(ARGS)
	@$(MAKE) --no-print-directory bench

test-all: test test-slow test-pgbouncer test-versions ## Run everything: other versions too, and the long runs (hours)
	@echo "The long runs" && pytest -m long $(ARGS)

test-pgbouncer: $(STAMP) ## Run the acceptance tests with the product behind a real PgBouncer (pool_mode = session)
	@$(PYTEST) --pgbouncer tests/acceptance $(ARGS)

test-versions: test-postgres-16 test-kafka-3.7 test-lowest test-pythons ## Run the tests on other versions

test-postgres-16: $(STAMP)
	@echo "PostgreSQL 16" && PG_VERSION=16 $(PYTEST) -m "not long" packages apps $(ARGS)

test-kafka-3.7: $(STAMP)
	@echo "Kafka 3.7.0" && KAFKA_VERSION=3.7.0 $(PYTEST) -m "not long" packages apps $(ARGS)

test-lowest: $(LOWEST)/.synced
	@echo "FastAPI 0.115, Pydantic 2.11" && $(LOWEST)/bin/$(PYTEST) -m "not long" $(ARGS)

# Newer interpreters, as far as they are installed.
test-pythons: $(foreach version,$(PYTHONS),$(if $(shell command -v python$(version)),test-python-$(version)))

test-python-%: $(STAMP)
	@echo "Python $*" && uv venv --quiet --clear --python "$$(command -v python$*)" .venv-$* \
	  && uv pip sync --quiet --python .venv-$*/bin/python --require-hashes requirements.lock \
	  && uv pip install --quiet --python .venv-$*/bin/python --no-deps --no-build-isolation $(PACKAGES:%=--editable %) \
	  && .venv-$*/bin/$(PYTEST) -m "not slow and not long" $(ARGS)

# The lowest supported versions of packages that users also use directly; the others are resolved to fit.
$(LOWEST)/.synced: requirements.in $(PACKAGES:%=%/pyproject.toml) | $(STAMP)
	@echo "Installing the lowest supported FastAPI and Pydantic"
	@uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@printf 'fastapi==0.115.*\npydantic==2.11.*\n' > $(LOWEST)/lowest.txt
	@uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/lowest.txt --requirement requirements.in \
	  --editable packages/types --editable packages/shared-types --editable 'packages/relaybox[http,local,redis]' --editable 'apps/backend[local,llm,chess]'
	@touch $@

bench: $(STAMP) ## Run the short form of every benchmark, or of some (NAMES=)
	@exec python benchmarks run --short $(NAMES)

bench-compare: $(STAMP) ## Run the short benchmarks of another revision and of this tree in turns (REV=, NAMES=, TURNS=)
	@test -n "$(REV)" || { echo "Name a revision: make bench-compare REV=main" >&2; exit 3; }
	@exec python benchmarks compare $(REV) $(NAMES) $(if $(TURNS),--turns $(TURNS))

chaos: $(STAMP) ## Run relays and consumers under injected faults on real servers, 2 minutes (CLUSTER=1, MINUTES=, SEED=, DELIVERY=)
	@exec python -m tests.faults.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) $(if $(DELIVERY),--delivery $(DELIVERY)) $(if $(CLUSTER),--cluster)

image: $(STAMP) ## Build the image and run both demos on its services (needs root, buildah, debootstrap)
	@pytest -m long -rs tests/packaging/test_image.py $(ARGS)

mutants: $(STAMP) ## Seed defects into copies of the sources; the tests must detect each (NAMES=)
	@exec python -m tests.mutants $(NAMES)

sql: $(STAMP) ## Generate infrastructure/docker/init/postgres/20-migration-event-sourcing.sql
	@backend migrate sql > infrastructure/docker/init/postgres/20-migration-event-sourcing.sql

guarantees: $(STAMP) ## Generate docs/reference/guarantees.md from its rules and the tests' markers
	@python -m tests.guarantees

reference: $(STAMP) ## Generate docs/reference/python.md and a page per module from the docstrings
	@python -m tests.reference

# All extras but `prefect`, whose packages conflict with the others: requirements-prefect.in.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
  --no-emit-package relaybox --no-emit-package relaybox-types --no-emit-package relaybox-shared-types

lock: ## Resolve the newest dependencies into requirements.lock and requirements-prefect.lock
	@$(LOCK) $(foreach extra,http local redis testing llm chess,--extra $(extra)) $(PACKAGES:%=%/pyproject.toml) requirements.in \
	  --output-file requirements.lock
	@$(LOCK) --extra prefect packages/relaybox/pyproject.toml requirements-prefect.in --output-file requirements-prefect.lock

# For root with a closed home directory, the servers store their data elsewhere; moved-to names the directory.
clean: ## Remove the environment and the product's data
	@for pointer in $(wildcard .relaybox/data/*/moved-to); do \
	  case "$$(cat $$pointer)" in */relaybox-*) echo "rm -rf $$(cat $$pointer)"; rm -rf "$$(cat $$pointer)";; esac; done
	rm -rf $(VENV) $(LOWEST) $(PYTHONS:%=.venv-%) .relaybox
