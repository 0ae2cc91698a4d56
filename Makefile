PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint mutation docs clean

demo: $(READY)  ## A real model answers real prompts, plain and speculative
	$(BIN)/foretoken demo

test: $(READY)  ## Everything that must hold, on a CPU
	$(BIN)/pytest

lint: $(READY)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutation: $(READY)  ## Plant the famous bugs one by one; the suite must notice each
	$(BIN)/python -m tests.mutation

docs: $(READY)  ## Rewrite the pages generated from the code
	$(BIN)/foretoken methods --markdown > docs/methods.md

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), once (a few minutes)"
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
