# Targets for people who work on kmsbridge; `make` alone lists them.
# PYTHON=python3.12 chooses an interpreter, which then has an environment of its own (.venv-3.12).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Deferred, so that a target that needs no interpreter looks for none.
find_python = for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14); do \
	    if command -v "$$name" >/dev/null && \
	      "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then python=$$name; break; fi; done; \
	  test -n "$${python:-}" || \
	    { echo "kmsbridge needs Python 3.11 or later$(if $(PYTHON),; $(PYTHON) is not,: found none on PATH; name one with PYTHON=)" >&2; exit 1; }

ifdef PYTHON
  VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
  VENV := .venv-$(or $(VERSION),none)
else
  VENV := .venv
endif
PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --no-input --disable-pip-version-check install
BENCH_VENV := .venv-bench
BENCH_PY := $(BENCH_VENV)/bin/python
LOCALSTACK_VENV := .venv-localstack

UV ?= uv
# Twice the processors: many a test waits for a server.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 8 ? 2 * n : 16)))
PYTEST := $(PY) -m pytest -n $(JOBS) --dist worksteal
# What can differ between Python versions; the command line, the documents, the wheel and the shape of the code hardly do.
LIGHT := $(addprefix tests/,unit aio concurrency faults secrets vectors)
CODE = $(wildcard kmsbridge plugins/*/kmsbridge_* tests examples benchmarks localstack)
PLUGINS := $(wildcard plugins/*)

# The generator announces its successor at each run.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo demo-roles demo-web docs test test-light lint format torture bench backends setup requirements clean distclean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

demo: $(VENV)/.kmsbridge ## see real files protected, rotated, rewrapped and refused
	@$(PY) examples/demo.py

demo-roles: $(VENV)/.dev ## see what a web server, a worker and attackers in their place can and cannot read
	@$(PY) -m examples.roles

demo-web: $(VENV)/.dev ## see a web application store, find and partly show phone numbers that it cannot read
	@$(PY) -m examples.web

test: $(VENV)/.dev $(LOCALSTACK_VENV)/.localstack ## start the real servers and run the whole test suite, torture at a tenth of its size
	@$(PYTEST) tests

test-light: $(VENV)/.dev ## run the core's quick tests; meant with PYTHON=
	@KMSBRIDGE_TORTURE=light $(PYTEST) -m "not slow and not torture" $(LIGHT)

lint: $(VENV)/.dev ## check style, format and types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy $(CODE)

format: $(VENV)/.dev ## put the code into its format and fix what can be fixed safely
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

torture: $(VENV)/.dev ## run mutations, kills, forks and files of 1 GiB at their full size (takes long); KMSBRIDGE_SEED= repeats a run
	@KMSBRIDGE_TORTURE=full $(PYTEST) --timeout=0 tests/torture tests/concurrency tests/faults tests/providers/test_outage.py

docs: $(VENV)/.dev ## build the documentation as a site, in site/
	@$(PY) -m mkdocs build --strict
	@echo "open site/index.html"

bench: $(BENCH_VENV)/.kmsbridge $(LOCALSTACK_VENV)/.localstack ## measure, beside a bare loop, the providers' SDKs, the AWS Encryption SDK and Tink
	@$(BENCH_PY) -m benchmarks

backends: $(VENV)/.dev $(LOCALSTACK_VENV)/.localstack ## run LocalStack, OpenBao and the Cloud KMS emulator until Ctrl-C, and print a configuration
	@$(PY) -m localstack

setup: $(VENV)/.dev ## make the environment and stop
	@$(PY) --version

requirements: ## work out the hashed requirements anew, with uv
	@command -v $(UV) >/dev/null || { echo "uv is not on PATH; install it or name it with UV=" >&2; exit 1; }
	@rm -f requirements/*.txt
	@# dev first: the others take its pins, so that one environment can hold them all.
	@$(call compile,dev)
	@$(call compile,core,-c dev.txt)
	@$(call compile,drivers,-c dev.txt)
	@$(call compile,bench,-c dev.txt)
	@cd localstack && rm -f requirements.txt && $(UV) --quiet pip compile $(COMPILE) \
	  --exclude-newer 2025-12-15 requirements.in -o requirements.txt >/dev/null

COMPILE := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links
compile = cd requirements && $(UV) --quiet pip compile $(COMPILE) $(2) $(1).in -o $(1).txt >/dev/null

clean: ## remove what tools left behind; environments stay
	@rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environments too
	@rm -rf .venv .venv-*

# Environments. A stamp is older than what it was made from only if that has changed since.

define new_venv
	@$(find_python); \
	  "$$python" -c 'import ensurepip' 2>/dev/null || \
	    { echo "$$python cannot make environments; install its venv package (python3-venv)" >&2; exit 1; }; \
	  echo "setting up $(@D) with $$("$$python" --version)"; \
	  "$$python" -m venv $(@D)
endef

$(VENV)/.core: requirements/core.txt
	$(new_venv)
	@$(PIP) --require-hashes --only-binary :all: -r $<
	@touch $@

$(VENV)/.kmsbridge: $(VENV)/.core pyproject.toml
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(PLUGINS:=/pyproject.toml) | $(VENV)/.kmsbridge
	@$(PIP) --require-hashes --only-binary :all: -r $<
	@$(PIP) --no-deps --no-build-isolation $(PLUGINS:%=--editable ./%)
	@touch $@

# An environment of its own: it pins what the others must not.
$(LOCALSTACK_VENV)/.localstack: localstack/requirements.txt
	$(new_venv)
	@$(LOCALSTACK_VENV)/bin/python -m pip -qq --no-input --disable-pip-version-check install --require-hashes -r $<
	@touch $@

$(BENCH_VENV)/.bench: requirements/bench.txt
	$(new_venv)
	@$(BENCH_PY) -m pip -qq --no-input --disable-pip-version-check install \
	  --require-hashes --only-binary :all: -r $<
	@touch $@

$(BENCH_VENV)/.kmsbridge: $(BENCH_VENV)/.bench pyproject.toml $(PLUGINS:=/pyproject.toml)
	@$(BENCH_PY) -m pip -qq --no-input --disable-pip-version-check install \
	  --no-deps --no-build-isolation --editable . $(PLUGINS:%=--editable ./%)
	@touch $@
