# Everything from one checkout: `make demo`, `make test`. Needs Python 3.10 or later, git and make; no root.

DEMO  := example_dags/demo/run.py
VENV  := .venv
BIN   := $(VENV)/bin
# Two cores are what we promise to be bearable on; `make test JOBS=8` on a bigger machine.
JOBS  := 2
# How many documents `make fuzz` draws for a target, at least.
EXAMPLES := 5000

# The first interpreter that all dependencies support. `make PYTHON=…` overrides.
PYTHON := $(firstword $(foreach p,python3 python3.12 python3.11 python3.10 python3.13 python,$(shell \
            $(p) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $(p))))

PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# The tests start hundreds of processes; each would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast fuzz lint format docs screenshots bench lock release image guard guard-image clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo       train, sign, verify and score in Airflow and in Kubeflow Pipelines; then tamper'
	@echo 'make test       lint and every test, with real servers where they are installed'
	@echo 'make test-fast  the quick tests, under a minute'
	@echo 'make fuzz       hostile documents for every parser, EXAMPLES=5000 or more of them each'
	@echo 'make lint       ruff, mypy, import-linter'
	@echo 'make format     let ruff format and fix'
	@echo 'make docs       the documentation as a site, in build/site'
	@echo 'make screenshots the pictures in the documentation, by chromium'
	@echo 'make bench      the speed and memory figures that the documents quote'
	@echo 'make lock       resolve constraints.txt anew'
	@echo 'make release    wheel, source and bill of materials, signed: SIGNER=awskms:…'
	@echo 'make image      the container image of the Kubeflow components'
	@echo 'make guard      the guard directory: the wrapper for images without Python'
	@echo 'make guard-image the image that brings the guard directory into pods'
	@echo 'make clean      remove the environment and everything that was built'

demo: $(VENV)/.has-demo
	$(BIN)/python $(DEMO)

test: lint
	$(PYTEST) --durations=40 --durations-min=5

# No server is shared here, so neighbours may go to one worker and share what their file sets up.
test-fast: $(VENV)/.has-test
	$(PYTEST) --dist worksteal -m 'not slow and not server and not airflow and not kfp'

# Hypothesis keeps what it finds in .hypothesis, and tries it first in every later run of the tests.
fuzz: $(VENV)/.has-test
	HYPOTHESIS_PROFILE=fuzz FUZZ_EXAMPLES=$(EXAMPLES) $(PYTEST) --timeout=0 tests/fuzz

lint: $(VENV)/.has-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.has-test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.has-test
	$(BIN)/python scripts/make_diagrams.py
	$(BIN)/python scripts/make_proof_page.py
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo 'build/site/index.html'

# Of the pages and reports as they are now; a test says when they are behind.
screenshots: $(VENV)/.has-test
	@test -n "$$(command -v chromium)" || { echo 'make screenshots needs chromium' >&2; exit 1; }
	$(BIN)/python -m tests.screenshots

bench: $(VENV)/.has-test
	$(BIN)/python -m benchmarks $(PARTS)

# One file for all supported Pythons. The lower end of the kfp range is the one that most clusters run.
lock: $(VENV)/.has-test
	echo 'kfp==2.16.1' | $(BIN)/uv pip compile pyproject.toml --extra test --constraint /dev/stdin \
	  --universal --python-version 3.10 --upgrade \
	  --no-header --no-annotate --no-emit-index-url --output-file constraints.txt

# SIGNER is the URI of the key that signs it; the key's public half is what users verify with.
release: $(VENV)/.has-test
	@test -n '$(SIGNER)' || { echo 'make release needs SIGNER=awskms:… or another signer' >&2; exit 2; }
	$(BIN)/python scripts/make_release.py '$(SIGNER)' --output build/release/sealflow

# Any builder will do. BUILD_ARGS goes to it as it stands.
BUILDER = $(firstword $(foreach b,podman buildah docker,$(shell command -v $(b))))
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"$$/\1/p' shared/sealflow/_version.py)
image:
	@test -n '$(BUILDER)' || { echo 'make image needs podman, buildah or docker' >&2; exit 1; }
	$(BUILDER) build --file Containerfile --tag sealflow:$(VERSION) --build-arg VERSION=$(VERSION) $(BUILD_ARGS) .

# From an environment of its own, since what is installed there is what the directory holds. GUARD_ARGS='--with psycopg …'
GUARD_PYTHON := build/guard-environment
guard: $(GUARD_PYTHON)/.ready
	$(GUARD_PYTHON)/bin/python scripts/build_guard.py build/guard $(GUARD_ARGS)

$(GUARD_PYTHON)/.ready: pyproject.toml constraints.txt scripts/bootstrap.py | require-python
	mkdir -p build
	$(PYTHON) scripts/bootstrap.py $(GUARD_PYTHON) boto3,timestamp
	touch $@

# The same files give the same image: times are those of the directory (--timestamp; docker: SOURCE_DATE_EPOCH=0).
guard-image: guard
	@test -n '$(BUILDER)' || { echo 'make guard-image needs podman, buildah or docker' >&2; exit 1; }
	SOURCE_DATE_EPOCH=0 $(BUILDER) build $(if $(findstring docker,$(BUILDER)),,--timestamp 0) \
	  --file Containerfile.guard --tag sealflow-guard:$(VERSION) --build-arg VERSION=$(VERSION) $(BUILD_ARGS) build/guard

# `test` contains `demo`, so one environment serves both and the second command installs nothing.
$(VENV)/.has-test: pyproject.toml constraints.txt scripts/bootstrap.py | require-python
	$(PYTHON) scripts/bootstrap.py $(VENV) test
	touch $@ $(VENV)/.has-demo

$(VENV)/.has-demo: pyproject.toml constraints.txt scripts/bootstrap.py | require-python
	$(PYTHON) scripts/bootstrap.py $(VENV) demo
	touch $@

.PHONY: require-python
require-python:
	@test -n '$(PYTHON)' || { echo 'No Python 3.10 to 3.13 found; name one: make PYTHON=/path/to/python3' >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist .demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
