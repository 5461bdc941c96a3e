# Two commands do everything on a fresh machine: `make run TABLE=fervt-table11` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TABLE ?= fervt-table11
export OMP_WAIT_POLICY := PASSIVE

.PHONY: run test lint bench clean

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: $(VENV)/.installed
	$(BIN)/python run_all.py --table $(TABLE) $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --benchmark-disable -m "not slow and not gpu" tests

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(BIN)/python -m pytest --benchmark-only tests/benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
