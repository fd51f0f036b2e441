# Two commands do everything: `make reproduce` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: reproduce test test-oldest lint docs lock clean

reproduce: $(READY)
	$(BIN)/lightkv reproduce

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The graph on the oldest supported nnsight, from a folder of its own.
test-oldest: $(READY)
	$(BIN)/python -m pip install -q --upgrade --no-deps --target .oldest nnsight==0.8.0
	PYTHONPATH=.oldest OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		tests/graph tests/families tests/probing/test_interventions.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/python -m pip install -q -r requirements-docs.lock
	$(BIN)/mkdocs build --strict

# torch comes first and alone, so that nothing else decides which build is taken.
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $(READY)

# Pins what a fresh environment gets. Review the difference before committing it.
lock:
	rm -rf .lock-venv
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/python -m pip install -q torch==2.13.0 setuptools
	.lock-venv/bin/python -m pip install -q -e .[dev]
	.lock-venv/bin/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	.lock-venv/bin/python -m pip install -q -e .[docs]
	.lock-venv/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements-docs.lock
	rm -rf .lock-venv

clean:
	rm -rf $(VENV) .oldest report results site build *.egg-info
