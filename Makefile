# Everything a newcomer types. Each target sets up what it needs by itself; the second call is quick.
VENV   ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RUN    ?= runs/paper

.PHONY: help setup demo paper bench torture faults audit test test-fast test-lowest lint docs lock clean

help:           ## show the targets
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 22

setup: $(READY)  ## make the virtual environment with the locked versions

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"tristream needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Name another: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo "Setting up $(VENV) (about 6 GB, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.6"
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then \
		VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --require-hashes -r requirements.lock; \
	else \
		echo "requirements.lock is for Python 3.11; this is $$($(BIN)/python -V): installing the newest versions instead."; \
		VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -r pyproject.toml --extra dev; \
	fi
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)   ## render the built-in data set, train three streams, fuse, find anomalies (minutes)
	@$(BIN)/tristream demo

# What rehearses it: make paper DATA=like-ucf101 LISTS=like-ucf101/lists OPTIONS='--random-weights 0 --set …'
paper: $(READY)  ## Tkachenko 2018 on UCF101: make paper DATA=UCF-101 LISTS=ucfTrainTestlist (days: docs/results.md)
	@test -n "$(DATA)" -a -n "$(LISTS)" || { echo "make paper DATA=folder-of-class-folders LISTS=folder-of-official-lists"; exit 2; }
	@$(BIN)/tristream index --data $(DATA) --ucf101 $(LISTS) --split 1 --run $(RUN)
	@for name in temporal spatial audio; do 		$(BIN)/tristream train-stream $$name --preset paper --run $(RUN) $(OPTIONS) || { code=$$?; test $$code = 3 || exit $$code; }; done
	@$(BIN)/tristream embed --run $(RUN) || test $$? = 3
	@$(BIN)/tristream fuse --preset paper --run $(RUN)

bench: $(READY)  ## measure speed and memory here (tens of minutes)
	@$(BIN)/tristream bench

test: $(READY)   ## the whole suite, with ruff and mypy
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## the usual local loop
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow"

test-lowest: $(READY)  ## the fast tests with the oldest libraries that pyproject.toml allows, in .venv-lowest
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	@VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --resolution lowest-direct -r pyproject.toml --extra dev
	@VIRTUAL_ENV=.venv-lowest $(BIN)/uv pip install --quiet --no-deps --editable .
	@.venv-lowest/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" --deselect tests/test_lint.py

lint: $(READY)   ## ruff and mypy alone
	@$(BIN)/python -m pytest -q tests/test_lint.py

docs: $(READY)   ## build the documentation site: build/site/index.html
	@$(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

lock: $(READY)   ## renew requirements.lock (Python 3.11, with hashes, naming no index)
	@$(BIN)/uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --upgrade --extra dev pyproject.toml -o requirements.lock

torture: $(READY)  ## the 76 bad inputs of tests/torture against what must become of them (minutes)
	@$(BIN)/python tests/torture/run_kit.py

faults: $(READY)  ## kill, fill, flip and starve `embed` while it works; ten experiments (many minutes)
	@$(BIN)/python tests/torture/run_faults.py

audit: $(READY)  ## known holes in the locked packages (needs the network), then what no list of packages shows
	@code=0; $(BIN)/uv tool run pip-audit --require-hashes --disable-pip -r requirements.lock || { code=$$?; \
		echo "pip-audit found something, or could not reach its index or its database: see above"; }; \
	$(BIN)/tristream doctor || code=$$?; exit $$code

clean:           ## remove caches of the tools; never runs, cache or the environment
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
