# The commands of CONTRIBUTING.md. `make` alone lists them.
python = .venv/bin/python

.PHONY: help setup test quick lint types format docs site bench compare clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: .venv/installed  ## make .venv with everything that the other commands need

.venv/installed: pyproject.toml
	python3 -m venv .venv
	$(python) -m pip install -q -e ".[test]" pre-commit
	touch $@

test: setup  ## the whole test suite, on all cores
	$(python) -m pytest -n auto

quick: setup  ## the tests that compile little: seconds, not minutes
	$(python) -m pytest -n auto tests/test_geometry.py tests/test_naive.py tests/test_im2col.py \
	  tests/test_arguments.py tests/test_layering.py tests/test_signatures.py tests/test_docs.py

lint: setup  ## style
	$(python) -m ruff check . && $(python) -m ruff format --check .

format: setup  ## bring every file into the project's form
	$(python) -m ruff check --fix . ; $(python) -m ruff format .

types: setup  ## mypy, strict
	$(python) -m mypy

docs: setup  ## the pages' and docstrings' examples
	$(python) -m pytest -q tests/test_docs.py tests/test_examples.py fastcnn

site: setup  ## build the documentation site into site/, warnings are errors
	$(python) -m pip install -q -e ".[docs]"
	$(python) -m sphinx -W -q docs site

bench: setup  ## times on this machine, beside other libraries where they are installed
	.venv/bin/fastcnn bench

compare: setup  ## every engine against the specification
	.venv/bin/fastcnn compare && .venv/bin/fastcnn compare --model

clean:  ## remove the environment and what was compiled
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
