# `make` alone lists what there is. Everything runs out of .venv, which needs Python 3.11 or later and a package index.

.DEFAULT_GOAL := help
.PHONY: help install up down status logs demo test test-full lint bench fmt
.NOTPARALLEL:

PACKAGES := libs/shared libs/cli $(sort $(wildcard services/*))
BIN := .venv/bin
LOCK := requirements/dev.txt
ARGS ?=
# Of a test run: unit tests share the cores; the integration tests are a whole stack, and have them to themselves.
WORKERS ?= 2

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  ARGS=\"...\" is passed on to what up, logs, demo, test and bench run."

install: .venv/installed ## make .venv from the lock, with the packages of this repository in it

.venv/installed: $(LOCK) $(PACKAGES:%=%/pyproject.toml) .ci/install
	@.ci/install $(LOCK) $(PACKAGES)
	@touch $@

up: install ## start the local stack, or find the running one; leaves .kalends/env
	@$(BIN)/kalends up $(ARGS)

down: ## end the local stack
	@if [ -x $(BIN)/kalends ]; then $(BIN)/kalends down; fi

status: install ## what runs, since when, where
	@$(BIN)/kalends status

logs: install ## what the processes say; ARGS="booking -f" follows one
	@$(BIN)/kalends logs $(ARGS)

demo: install ## a first booking through everything, each step checked
	@$(BIN)/python -m kalends_cli.demo $(ARGS)

test: install ## every test, storms and properties at reduced counts
	$(BIN)/pytest -q -n $(WORKERS) --dist loadgroup -m "not full" libs services $(ARGS)
	$(BIN)/pytest -q -n 0 -m "not full" tests $(ARGS)

test-full: install ## the same at the full figures
	KALENDS_TEST_FULL=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadgroup libs services $(ARGS)
	KALENDS_TEST_FULL=1 $(BIN)/pytest -q -n 0 tests $(ARGS)

lint: install ## ruff, mypy, the layers, and what must not be in the sources
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@.ci/guard

bench: install ## every number the README claims
	@$(BIN)/python bench/run.py $(ARGS)

fmt: install ## put the sources in order
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
