# Two commands do everything: `make reproduce` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LMMS := .lmms-venv
LMMS_READY := $(LMMS)/.ready
SNAKE := .snake-venv
SNAKE_READY := $(SNAKE)/.ready
WORKERS ?= 2

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What other processors compute: ATen, MKL, oneDNN and OpenBLAS held to their instructions.
on-default := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Nehalem
on-avx2 := ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell
on-native :=
PROCESSORS := default avx2 native
ONE_THREAD := $(PROCESSORS:%=test-%-1)
TWO_THREADS := $(PROCESSORS:%=test-%-2)
NUMERIC := tests/test_closeness.py tests/test_attention.py tests/test_picked_attention.py \
	tests/test_reduction.py tests/eviction tests/merging tests/pruning tests/test_methods.py \
	tests/graph tests/families tests/probing/test_probe.py \
	tests/probing/test_families.py tests/probing/test_interventions.py \
	tests/probing/test_measures.py tests/probing/test_information.py

.PHONY: reproduce test test-processors test-numeric $(ONE_THREAD) $(TWO_THREADS) test-oldest test-lmms test-workflow
.PHONY: mutants lint docs lock clean

reproduce: $(READY)
	$(BIN)/lightkv reproduce

test: $(READY)
	OMP_NUM_THREADS=1 $(PYTEST)

# The suite with other processors' kernels, with one and two threads; `make -k` goes on after red.
test-processors: $(ONE_THREAD) $(TWO_THREADS)

$(ONE_THREAD): test-%-1: $(READY)
	$(on-$*) OMP_NUM_THREADS=1 $(PYTEST) $(SUITE)

# Threads of several workers share the cores: one that waits must not spin.
$(TWO_THREADS): test-%-2: $(READY)
	$(on-$*) OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(PYTEST) $(SUITE)

# The numeric tests with kernels that this processor would not choose.
test-numeric: $(READY)
	if $(BIN)/python -c 'import torch; exit(torch.backends.cpu.get_cpu_capability() != "AVX512")'; \
		then $(MAKE) test-avx2-2 SUITE="$(NUMERIC)"; \
		else $(MAKE) test-default-2 SUITE="$(NUMERIC)"; fi

# A sample of one-line changes per room, and which of them no test notices; goes on where it stopped.
mutants: $(READY)
	$(BIN)/python -m pip install -q -r requirements-mutants.lock
	OMP_NUM_THREADS=1 WORKERS=$(WORKERS) $(BIN)/python -m tests.mutation run $(ROOMS)
	$(BIN)/python -m tests.mutation report $(ROOMS)

# The graph on the oldest supported nnsight, from a folder of its own.
test-oldest: $(READY)
	$(BIN)/python -m pip install -q --upgrade --no-deps --target .oldest nnsight==0.8.0
	PYTHONPATH=.oldest OMP_NUM_THREADS=1 $(PYTEST) tests/graph tests/families tests/probing/test_interventions.py

# Benchmarks of lmms-eval: .venv with what they need beside it, in an environment of its own.
test-lmms: $(LMMS_READY)
	OMP_NUM_THREADS=1 $(LMMS)/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/lmms

$(LMMS_READY): $(READY) requirements-lmms.lock
	$(BIN)/python -m venv --clear $(LMMS)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$($(LMMS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	$(LMMS)/bin/python -m pip install -q --no-deps -r requirements-lmms.lock
	touch $(LMMS_READY)

# Sweeps run by Snakemake, which is called from an environment of its own.
test-workflow: $(READY) $(SNAKE_READY)
	PATH="$(CURDIR)/$(SNAKE)/bin:$$PATH" OMP_NUM_THREADS=1 $(PYTEST) tests/workflow

$(SNAKE_READY): requirements-workflow.lock
	$(PYTHON) -m venv --clear $(SNAKE)
	$(SNAKE)/bin/python -m pip install -q -r requirements-workflow.lock
	touch $(SNAKE_READY)

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
	rm -rf $(VENV) $(LMMS) $(SNAKE) .oldest mutants report results site build *.egg-info
