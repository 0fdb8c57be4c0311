# Everything that a fresh machine needs: `make demo` answers questions on a long document, `make test` checks the project.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCUMENT := examples/nordic_factbook.txt

.PHONY: demo test lint clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/hybridctx ask $(DOCUMENT) \
	    --question "What is the coastline of Iceland?" \
	    --question "What is the area land of Sweden?" \
	    --question "What is the Labor force of Finland?" \
	    --evidence-dir demo_output
	@$(BIN)/python -c 'import json; print("Of {examples} fields of this document, drawn at random and asked for in these words," \
	    " it gets {exact_match:.0%} right (docs/hybridctx_tiny.md).".format(**json.load(open("benchmarks/results/fields.json"))))'

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) demo_output
