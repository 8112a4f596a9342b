# Two commands set everything up: `make quickstart` trains the embedded example, `make test` runs the tests.
PYTHON ?= python3
BIN := .venv/bin
# The tests of one file stay in one process. The system tests come first, as they take longest.
TWO_PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install quickstart data test test-all lint format

install: .venv/installed

.venv/installed: requirements-cpu.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

data: data/geo_hop/train-000000.tar

data/geo_hop/train-000000.tar: .venv/installed tools/build_geo_hop.py
	$(BIN)/python tools/build_geo_hop.py --out data/geo_hop --seed 0

quickstart: install data
	$(BIN)/torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml

test: install data
	$(BIN)/python -m pytest -m "not slow" $(TWO_PROCESSES)

test-all: install data
	$(BIN)/python -m pytest $(TWO_PROCESSES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
