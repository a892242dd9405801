# make install   an environment in .venv with everything pinned, the MPI included
# make demo      train four clients on real digits, in a few minutes
# make demo-dropout  the same, with one client killed half way
# make compare   the same seeds plain and encrypted, then a table and a picture of both
# make test      the tests but the slow ones
# make wheel     build the library `mphe` alone, into dist/
# make check-wheel  install it alone, away from here, and run two programs with it
# make docs      build the documentation as a site, into site/
# make flags-doc write docs/flags.md from the flags
# make format    format the code, and fix what can be fixed
# make check     everything that must hold: format, lint, types, all tests
# make bench        measure, in about six minutes; writes benchmarks/results/
# make bench-plots  draw docs/images/ from what was measured
# make bench-learning  train with fewer bits, values and clients, three seeds each, an hour or less
# make bench-peers  install the systems to compare with, each in an environment of its own
# make clean     remove what the above made, except results in runs/

PYTHON ?= python3
PYTHON310 ?= python3.10
VENV := .venv
BIN := $(VENV)/bin
ROUNDS ?= 80
SEEDS ?= 0 1
ADDRESS ?= localhost:8080
CODE = $(wildcard main.py fl mphe tests benchmarks examples)

# Open MPI refuses to start for root unless both are set.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

.PHONY: install demo demo-dropout compare test check wheel check-wheel docs flags-doc format bench \
  bench-plots bench-learning bench-peers clean

install: $(VENV)/.installed

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: $(PYTHON) is not Python 3.11 or newer: run make PYTHON=/path/to/python3.11" >&2; \
	  exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "make: $(PYTHON) cannot make environments: install its venv module" >&2; exit 2; }
	@touch $@

$(VENV)/.installed: requirements.txt Makefile | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@# More ranks than cores is normal here, and a killed client must not end the job.
	@conf=$(VENV)/etc/prte-mca-params.conf; \
	for line in "rmaps_default_mapping_policy = :oversubscribe" "state_base_recoverable = 1"; do \
	  grep -qxF "$$line" $$conf || echo "$$line" >> $$conf; \
	done
	@touch $@

$(VENV)/.tools: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

demo: install
	$(BIN)/mpirun -n 5 -H localhost:5 $(BIN)/python main.py --num_peers 4 \
	  --server_address $(ADDRESS) --robust True --resiliency 0.75 --learning_rate 0.1 \
	  --batch_size_per_worker 256 --num_iterations $(ROUNDS) --dataset mnist5k

demo-dropout: install
	$(BIN)/python examples/dropout.py --address $(ADDRESS)

# A new directory each time: nothing has to be deleted.
COMPARED := runs/compare/$(shell date +%Y-%m-%d-%H%M%S)

define compared_run
$(BIN)/mpirun -n 5 -H localhost:5 $(BIN)/python main.py --num_peers 4 \
  --server_address $(ADDRESS) --robust True --resiliency 0.75 --learning_rate 0.1 \
  --batch_size_per_worker 256 --num_iterations $(ROUNDS) --dataset mnist5k \
  --evaluate_every 1 --aggregation $(1) --seed $(2) --output $(COMPARED)/$(1)-$(2)

endef

compare: install
	$(foreach seed,$(SEEDS),$(foreach how,plain mphe,$(call compared_run,$(how),$(seed))))
	$(BIN)/python -m fl.report --picture $(COMPARED)/report.png \
	  $(foreach how,plain mphe,$(foreach seed,$(SEEDS),$(COMPARED)/$(how)-$(seed)))

# A worker for each core; tests/conftest.py says what may run beside what.
TESTING := -q -n auto --durations=15

test: $(VENV)/.tools
	$(BIN)/python -m pytest $(TESTING) -m "not slow"

check: $(VENV)/.tools
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest $(TESTING)

wheel: install
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Slow tests, so `make check` runs them with all others.
check-wheel: $(VENV)/.tools
	$(BIN)/python -m pytest -q tests/package

.venv-docs/.installed: requirements-docs.txt | $(VENV)/.python
	$(BIN)/python -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement requirements-docs.txt
	@touch $@

# The site has the folders of the repository, so that links work in both.
docs: .venv-docs/.installed
	rm -rf build/docs
	mkdir -p build/docs
	cp -r $(wildcard *.md) docs examples build/docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict --quiet

flags-doc: install
	$(BIN)/python -m fl.config.flags_page > docs/flags.md

format: $(VENV)/.tools
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: install
	@for name in budgets primitives profile threads memory scaling peers proofs round; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

bench-plots: install
	$(BIN)/python -m benchmarks.plots

bench-learning: install
	$(BIN)/python -m benchmarks.learning bits compression show

bench-peers:
	@for pair in tenseal:$(PYTHON) flower:$(PYTHON) openfhe:$(PYTHON310); do \
	  peer=$${pair%%:*} python=$${pair#*:}; \
	  $$python -m venv .venv-peers/$$peer && .venv-peers/$$peer/bin/python -m pip install --quiet \
	    --requirement benchmarks/requirements-$$peer.txt || \
	    { rm -rf .venv-peers/$$peer; echo "make: $$peer is left out; make bench says so" >&2; }; \
	done

clean:
	rm -rf $(VENV) .venv-peers .venv-docs build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
