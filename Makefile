# Two commands for users: `make demo` and `make test`. Each builds .venv itself.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test soak lint bench clean

demo: .venv/demo
	$(BIN)/lape demo --out runs/demo --overwrite

test: .venv/dev
	$(BIN)/pytest -m "not soak" --durations 8

soak: .venv/dev
	$(BIN)/pytest -m soak

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/steering.py
	$(BIN)/python benchmarks/identify.py

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lape needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/pip pyproject.toml
	$(BIN)/pip install --disable-pip-version-check -e ".[demo]"
	touch $@

.venv/dev: .venv/bin/pip pyproject.toml
	$(BIN)/pip install --disable-pip-version-check -e ".[dev]"
	touch $@ .venv/demo

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
