# Two commands for a new user: `make demo` (the whole road) and `make test`. Both make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled as they are first imported; all at once takes a third of the installation.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check-style clean

demo: $(VENV)/.installed-eval
	$(BIN)/xmodel2 demo --out demo --overwrite

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

$(VENV)/.installed-eval: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[eval,serve,gpu]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[dev,eval,alfworld,data,ray,serve,gpu]'
	touch $(VENV)/.installed-eval $@

clean:
	rm -rf $(VENV) demo
