# What a newcomer types. Everything is done by doit, pytest and `python -m lab`; this file
# sets up what they need and calls them.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LAB_PORT ?= 8470
TASKS ?=

.PHONY: help setup possible demo test soak lint bench clean lab-serve lab-next-day

help:
	@echo "make demo          the whole job on the lab: snapshot to installed client (root)"
	@echo "make test          all tests; those that this machine cannot run are listed"
	@echo "make soak          the long tests: hundreds of kills at random moments (root)"
	@echo "make lint          ruff and mypy"
	@echo "make bench         benchmarks against the usual ways; JSON in bench/results; QUICK=1: minutes (root)"
	@echo "make setup         Debian packages, virtual environment, this project"
	@echo "make lab-serve     the lab's mirror on 127.0.0.1:$(LAB_PORT), until Ctrl-C"
	@echo "make lab-next-day  publish the second day's snapshot on the lab's mirror"
	@echo "make clean         delete the lab, the environment and caches; state/ stays, it is yours"

setup: $(STAMP)

$(STAMP): pyproject.toml lab/setup
	@PYTHON="$(PYTHON)" lab/setup .venv
	@touch $@

possible:
	@lab/setup --check

demo: possible $(STAMP)
	@$(BIN)/python -m lab demo --port $(LAB_PORT) -- $(TASKS)

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# What `make test` does a few times, hundreds of times; BINMILL_SEED repeats what went wrong.
soak: $(STAMP)
	$(BIN)/python -m pytest -m soak

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# BENCH=snapshots runs one of them; QUICK=1 takes fewer pairs of smaller data: docs/benchmarks.md.
bench: $(STAMP)
	@command -v rsync >/dev/null || { echo "benchmarks compare with rsync: apt-get install rsync"; exit 1; }
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(BENCH)

lab-serve: $(STAMP)
	@$(BIN)/python -m lab serve --port $(LAB_PORT)

lab-next-day: $(STAMP)
	@$(BIN)/python -m lab next-day

# By the safe deletion of tasks.system.files: never across a mount, never through a link.
clean:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m lab clean; fi
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache binmill.egg-info
	@find tasks tests dodo.py -name __pycache__ -type d -prune -exec rm -rf {} +
