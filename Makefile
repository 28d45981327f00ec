# Every wish is one command; `make help` lists them. Each sets up what it needs by itself.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
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

.DEFAULT_GOAL := help
.PHONY: help setup run demo env test test-all lint lock bench clean

help: ## List the wishes
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

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

lock: ## Resolve the dependencies anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade \
	  --all-extras $(PACKAGES:%=%/pyproject.toml) requirements.in \
	  --no-emit-package relaybox --no-emit-package relaybox-types --output-file requirements.lock

clean: ## Remove the environment and the product's data
	rm -rf $(VENV) .relaybox
