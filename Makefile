# The commands that people and CI use; each makes what it needs, so that a fresh checkout needs nothing run before.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed

STREAMING := .venv-streaming/installed

.PHONY: help setup demo test lint format bench bench-peers drill fuzz

help:
	@echo "make setup   environment in $(VENV)"
	@echo "make demo    the whole recipe on data it makes itself, about five minutes on two cores"
	@echo "make test    all tests"
	@echo "make lint    formatter, linter, type checker"
	@echo "make drill   faults on a cluster of several machines on this one, as root, half an hour"
	@echo "make fuzz    hostile files for every reader, a minute each"
	@echo "make bench   measurements against plain loops and bare decoding"
	@echo "make bench-peers   loader and pruning beside other libraries', half an hour"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/yolo-dist demo

test: setup
	$(VENV)/bin/pytest

drill: setup
	$(VENV)/bin/python tests/drills/drill.py --out tests/drills/results.json

fuzz: setup
	$(VENV)/bin/python tests/fuzz/fuzzer.py

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup
	$(VENV)/bin/python benchmarks/loader.py
	$(VENV)/bin/python benchmarks/order.py
	$(VENV)/bin/python benchmarks/training.py
	$(VENV)/bin/python benchmarks/training_step.py
	$(VENV)/bin/python benchmarks/tracking.py
	$(VENV)/bin/python benchmarks/mixture.py
	$(VENV)/bin/python benchmarks/convert.py
	$(VENV)/bin/python benchmarks/object_store.py
	$(VENV)/bin/python benchmarks/quantization.py

bench-peers: setup $(STREAMING)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[bench]'
	$(VENV)/bin/python benchmarks/loader_peers.py
	$(VENV)/bin/python benchmarks/pruning.py

# mosaicml-streaming asks for an older NumPy than the rest.
$(STREAMING): pyproject.toml benchmarks/streaming-constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -c benchmarks/streaming-constraints.txt -e '.[bench-streaming]'
	touch $@
