# make demo       a first run: train a small network on handwritten digits
# make test       the default test suite
# make test-slow  the tests that run for long, and those that exchange checkpoints with Lightning
# make check      style, types, the house rules and the fast tests (what to run before every commit)
# make format     bring the code into shape
# make lists      write the checked-in lists anew: the public surface, the tree in the README, docs/errors.md
# make clients    run what packages that need Lightning test of themselves, on it and on Fulmen (long; needs PyPI)
# make clean      remove what make made
#
# Everything happens in .venv, made from PYTHON (3.11 or newer). It is installed again only when pyproject.toml or
# constraints.txt has changed. PYTEST_ARGS goes to pytest: make test PYTEST_ARGS="-k checkpoint".
# Lightning has a .venv-lightning of its own, which test-slow makes; FULMEN_LIGHTNING_PYTHON names another interpreter.

PYTHON ?= python3
VENV ?= .venv
LIGHTNING_VENV := .venv-lightning
WORKERS ?= auto
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP_OPTIONS := --disable-pip-version-check -q -c constraints.txt
PIP_INSTALL := $(BIN)/python -m pip install $(PIP_OPTIONS)
# one thread per process: the parallel tests share the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.PHONY: demo test test-slow lightning check lint types house fast format lists clients clean
.DELETE_ON_ERROR:

demo: $(VENV)/plain.stamp
	$(BIN)/fulmen demo $(DEMO_ARGS)

test: $(VENV)/dev.stamp
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(VENV)/dev.stamp lightning
	$(PYTEST) -m slow -rs $(PYTEST_ARGS)

# without it the tests that need it are skipped, so that a machine without a network can run the others
lightning:
ifeq ($(FULMEN_LIGHTNING_PYTHON),)
	@$(MAKE) --no-print-directory $(LIGHTNING_VENV)/stamp || { rm -rf $(LIGHTNING_VENV); \
	  echo "Lightning cannot be installed here: the tests that run it are skipped"; }
endif

check: lint types fast

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/pyright --pythonpath $(BIN)/python

house: $(VENV)/dev.stamp
	$(PYTEST) tests/house

fast: $(VENV)/dev.stamp
	$(PYTEST) --ignore tests/examples $(PYTEST_ARGS)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lists: $(VENV)/dev.stamp
	$(BIN)/python -m tests.house.public_surface
	$(BIN)/python -m tests.house.readme_tree
	$(BIN)/python docs/generate_errors.py

clients: $(VENV)/dev.stamp
	$(BIN)/python -m tests.clients.run $(CLIENTS_ARGS)

clean:
	rm -rf $(VENV) $(LIGHTNING_VENV) build dist .pytest_cache .ruff_cache .hypothesis src/*.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Fulmen needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# what a user gets from `pip install .`, which is all that the demo needs
$(VENV)/plain.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Fulmen and its requirements into $(VENV) (PyTorch is large: a few minutes the first time)"
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing Fulmen with its development tools into $(VENV) (PyTorch is large: a few minutes the first time)"
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/plain.stamp

$(LIGHTNING_VENV)/stamp: constraints.txt | $(BIN)/python
	@echo "Installing Lightning into $(LIGHTNING_VENV) (PyTorch is large: a few minutes the first time)"
	@test -x $(LIGHTNING_VENV)/bin/python || $(PYTHON) -m venv $(LIGHTNING_VENV)
	$(LIGHTNING_VENV)/bin/python -m pip install $(PIP_OPTIONS) lightning torch numpy
	@touch $@
