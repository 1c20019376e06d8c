# For users: `make demo`, `make docs` and `make test`. Each builds .venv itself. All day long: `make check`.
PYTHON ?= python3
BIN = .venv/bin

LOWEST = .venv-lowest
PYTEST = pytest -n 2 --dist loadfile --no-loadscope-reorder
CORE = tests/values tests/store tests/data tests/detect tests/model tests/edit tests/recording

.PHONY: demo docs check test soak lowest lint bench clean

demo: .venv/demo
	$(BIN)/lape demo --out runs/demo --overwrite

docs: .venv/docs
	$(BIN)/python -m sphinx -W -n -q docs docs/_build/html
	@echo docs/_build/html/index.html

check: lint
	$(BIN)/$(PYTEST) -m "not soak and not slow"

test: .venv/dev
	$(BIN)/$(PYTEST) -m "not soak" --durations 8

soak: .venv/dev
	$(BIN)/pytest -m soak --timeout 7200

# The core on the lowest versions that pyproject.toml allows, in an environment of its own (several GB where torch brings CUDA).
lowest: $(LOWEST)/made
	$(LOWEST)/bin/$(PYTEST) $(CORE) -m "not soak"

$(LOWEST)/made: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct -e ".[study,zst,test]"
	touch $@

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

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

.venv/docs: .venv/bin/pip pyproject.toml
	$(BIN)/pip install --disable-pip-version-check -e ".[docs]"
	touch $@

.venv/dev: .venv/bin/pip pyproject.toml
	$(BIN)/pip install --disable-pip-version-check -e ".[dev]"
	touch $@ .venv/demo .venv/docs

clean:
	rm -rf .venv $(LOWEST) build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
