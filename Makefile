# Trunkline. Each target sets up what it needs in .venv, and costs nothing when that is done already.
# Written for GNU make 3.81 (macOS) and any POSIX sh.

PYTHON ?= python3
UV     ?= uv
ARGS   ?=
JOBS   ?= 4

VENV := .venv
BIN  := $(VENV)/bin
RUN  := $(VENV)/.ready-to-run
DEV  := $(VENV)/.ready-to-test
BUSY := $(VENV)/.busy
NODE := $(VENV)/node
CLIENTS := $(VENV)/compat
CLIENTS_NODE := $(VENV)/compat-node

# Locked wheels only: an sdist would fetch its build tools unlocked. The locks are complete, so there is nothing to resolve.
# The project itself is built with the locked backend. -qq leaves the errors.
PIP  := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
LOCK_FLAGS := --progress-bar off --no-deps --require-hashes --only-binary :all:
LOCKED := $(PIP) install $(LOCK_FLAGS)

# A stamp holds the folder it was made in. A copied tree, or a Python that has gone, makes them stale.
FRESH := $(shell test -x $(BIN)/python && test ! -e $(BUSY) && cat $(RUN) 2>/dev/null)
ifneq ($(FRESH),$(CURDIR))
$(RUN): again
endif

.DEFAULT_GOAL := help
.PHONY: again setup run demo test cover compat check bench bench-peers soak lock clean help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'ARGS="..." is passed on by run, test, compat, bench, bench-peers, soak and lock; JOBS=1 runs the tests one by one; PYTHON=python3.12 chooses the Python for a new .venv'

run: $(RUN) ## the whole gateway with a keyless provider, until Ctrl-C
	@exec $(BIN)/trunkline up $(ARGS)

demo: $(RUN) ## one chat over the bus, with its events, cost and explanation
	@exec $(BIN)/trunkline demo

test: $(DEV) $(NODE) ## the test suite, e.g. make test ARGS="tests/domain -x"
	@exec $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

cover: $(DEV) $(NODE) ## the test suite with coverage, also of the processes it starts; takes half as long again
	@exec $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

compat: $(CLIENTS)/.ready $(CLIENTS_NODE) ## clients that others wrote, at the edge in front of llama.cpp; e.g. make compat ARGS="-k node"
	@exec $(BIN)/python -m pytest -m compat tests/compat $(ARGS)

check: $(DEV) ## format, lint, types, architecture and docs
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest tests/test_architecture.py tests/test_docs.py -q

bench: $(DEV) ## the benchmarks
	@exec $(BIN)/trunkline bench $(ARGS)

bench-peers: $(DEV) ## beside bare aiohttp, and beside the gateways of others that are installed
	@exec $(BIN)/trunkline bench --only peers $(ARGS)

soak: $(DEV) ## long fault and load runs
	@exec $(BIN)/python -m pytest -m soak --timeout=0 $(ARGS)

setup: $(DEV) $(NODE) ## what run and test need, and nothing more
	@:

# The development lock is the constraint of the other two, so that all three agree; clients of others agree with nobody. Each
# keeps its versions where they still fit; make lock ARGS=--upgrade takes the newest.
COMPILE = $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links $(ARGS)
HEADER := \# Made from pyproject.toml by `make lock`; newest versions: `make lock ARGS=--upgrade`.
HEADER := $(HEADER)\n\# Names, versions and hashes only, for Python 3.11 and later on Linux and macOS.

lock: ## resolve the four lock files again (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: install it, or name it with UV=path/to/uv" >&2; exit 1; }
	@set -e; \
	for name in requirements requirements-dev requirements-build requirements-compat; do [ -f $$name.lock ] || : > $$name.lock; done; \
	$(COMPILE) --extra dev --extra engine --extra postgres --extra anthropic --extra gemini pyproject.toml -o requirements-dev.lock >/dev/null; \
	$(COMPILE) -c requirements-dev.lock pyproject.toml -o requirements.lock >/dev/null; \
	printf 'hatchling\neditables\n' | $(COMPILE) -c requirements-dev.lock - -o requirements-build.lock >/dev/null; \
	$(COMPILE) --group pyproject.toml:compat -o requirements-compat.lock >/dev/null; \
	title() { { printf '%b\n' "$$2"; cat "$$1"; } > "$$1.new"; mv "$$1.new" "$$1"; }; \
	title requirements.lock '# What Trunkline needs to run.\n$(HEADER)'; \
	title requirements-dev.lock '# What tests, checks and benchmarks need; everything in the other two locks is here too.\n$(HEADER)'; \
	title requirements-compat.lock '# Clients that others wrote, for make compat.\n$(HEADER)'; \
	title requirements-build.lock '# What installs Trunkline itself: the build backend.\n$(HEADER)'

clean: ## remove .venv, caches and build results (never your data)
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One make at a time works on .venv: $(BUSY) holds its process id. Where that process has gone, its installation was
# interrupted, and pip can't tell a half-copied package from a whole one: start again from nothing.
define ENTER
set -e; trap 'exit 130' INT TERM; told=; \
mkdir -p $(VENV); \
while ! (set -C; echo $$$$ > $(BUSY)) 2>/dev/null; do \
  other=$$(cat $(BUSY) 2>/dev/null || :); \
  if [ -n "$$other" ] && kill -0 "$$other" 2>/dev/null; then \
    [ -n "$$told" ] || { echo "Waiting for another make (process $$other) to finish setting up; if there is none, remove $(BUSY)." >&2; told=1; }; \
    sleep 1; \
  else \
    echo "The last set-up was interrupted: starting again." >&2; rm -rf $(VENV); mkdir -p $(VENV); \
  fi; \
done
endef
FAILED := { rm -f $(BUSY); echo "The set-up failed, see above; run make again once that is put right." >&2; exit 1; }

$(RUN): requirements.lock requirements-build.lock pyproject.toml
	@$(ENTER); \
	if [ -e $(RUN) ] && [ "$$(cat $(RUN))" != "$(CURDIR)" ]; then find $(VENV) -mindepth 1 -maxdepth 1 ! -name .busy -exec rm -rf {} +; fi; \
	if ! $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Trunkline needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) -V 2>&1 || :)." >&2; \
	    echo "Install one and name it: make $(firstword $(MAKECMDGOALS) setup) PYTHON=python3.12" >&2; rm -f $(BUSY); exit 1; fi; \
	  echo "Making $(VENV) with $$($(PYTHON) -V) (once)" >&2; \
	  find $(VENV) -mindepth 1 -maxdepth 1 ! -name .busy -exec rm -rf {} +; \
	  $(PYTHON) -m venv $(VENV) >&2 || { echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv" >&2; rm -f $(BUSY); exit 1; }; \
	fi; \
	echo "Installing what Trunkline needs to run (once; some seconds)" >&2; \
	$(LOCKED) -r requirements.lock -r requirements-build.lock || $(FAILED); \
	$(PIP) install --no-deps --no-build-isolation --editable . || $(FAILED); \
	echo "$(CURDIR)" > $(RUN); rm -f $(BUSY)

$(DEV): $(RUN) requirements-dev.lock
	@$(ENTER); \
	echo "Installing what the tests need (once; up to a minute)" >&2; \
	$(LOCKED) --no-compile -r requirements-dev.lock || $(FAILED); \
	touch $(DEV); rm -f $(BUSY)

# Servers and clients that none of us wrote. Without npm or a package index their tests are skipped, and say so.
define NPM_CI
command -v npm >/dev/null || exit 0; \
new=$@.$$$$; rm -rf $$new; mkdir $$new; cp $(1)/package.json $(1)/package-lock.json $$new; \
if npm ci --prefix $$new --ignore-scripts --no-audit --no-fund --fetch-retries=0 --silent; \
then rm -rf $@; mv $$new $@; touch $@; \
else rm -rf $$new; echo "npm could not install what $(1)/package.json names: its tests are skipped." >&2; fi
endef

$(NODE): tests/package-lock.json | $(DEV)
	@$(call NPM_CI,tests)

$(CLIENTS_NODE): tests/compat/package-lock.json | $(DEV)
	@$(call NPM_CI,tests/compat)

$(CLIENTS)/.ready: requirements-compat.lock | $(DEV)
	@echo "Installing clients that others wrote (once; some seconds)" >&2; rm -rf $(CLIENTS); \
	if $(BIN)/python -m venv --without-pip $(CLIENTS) && \
	  $(PIP) --python $(CLIENTS)/bin/python install $(LOCK_FLAGS) --no-compile -r requirements-compat.lock; \
	then touch $@; \
	else rm -rf $(CLIENTS); echo "pip could not install what requirements-compat.lock names: tests of those clients are skipped." >&2; fi
