# The commands that people and CI use; each makes what it needs, so that a fresh checkout needs nothing run before.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed

.PHONY: help setup demo test lint format bench

help:
	@echo "make setup   environment in $(VENV)"
	@echo "make demo    the whole recipe on data it makes itself, about five minutes on two cores"
	@echo "make test    all tests"
	@echo "make lint    formatter, linter, type checker"
	@echo "make bench   measurements against plain loops and bare decoding"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/yolo-dist demo

test: setup
	$(VENV)/bin/pytest

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
	$(VENV)/bin/python benchmarks/mixture.py
