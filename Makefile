# Short commands for newcomers. They set up the environment, then call doit, pytest and
# `python -m lab`.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LAB_PORT ?= 8470
TASKS ?=

.PHONY: help setup possible demo test soak lint bench clean lab-serve lab-next-day

help:
	@echo "make demo          run everything on the lab, from snapshot to installed client (root)"
	@echo "make test          run all tests; skipped ones are listed with the reason"
	@echo "make soak          run the long tests: hundreds of kills at random moments (root)"
	@echo "make lint          run ruff and mypy"
	@echo "make bench         run the benchmarks (root); BENCH=NAME: only one; QUICK=1: a few minutes each"
	@echo "make setup         install Debian packages, a virtual environment and binmill"
	@echo "make lab-serve     serve the lab's mirror on 127.0.0.1:$(LAB_PORT), until Ctrl-C"
	@echo "make lab-next-day  publish the second day's snapshot on the lab's mirror"
	@echo "make clean         delete the lab, the environment and caches, but not state/"

setup: $(STAMP)

$(STAMP): pyproject.toml lab/setup
	@PYTHON="$(PYTHON)" lab/setup .venv
	@touch $@

possible:
	@lab/setup --check

demo: possible $(STAMP)
	@$(BIN)/python -m lab demo --port $(LAB_PORT) -- $(TASKS)

# The files run in the order that tests/conftest.py gives them.
test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Repeats hundreds of times what `make test` does a few times; BINMILL_SEED repeats a failed run.
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

# Deletes through tasks.system.files, which crosses no mount and follows no link.
clean:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m lab clean; fi
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache binmill.egg-info
	@find tasks tests dodo.py -name __pycache__ -type d -prune -exec rm -rf {} +
