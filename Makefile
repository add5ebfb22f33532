# Two commands for a new user: `make demo` (the whole road) and `make test`. Both make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check-style clean

demo: $(VENV)/.installed-eval
	$(BIN)/xmodel2 demo --out demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

$(VENV)/.installed-eval: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[eval]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-eval
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,eval,data,ray]'
	touch $@

clean:
	rm -rf $(VENV) demo
