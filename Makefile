# Every target builds what it needs and is quick the second time.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON_FILES := $(wildcard espnet_taste tests tools local benchmarks setup.py)
BIN := .venv/bin
# The network of the S3 units, for its tests: not locked, see setup.py. Its other
# dependencies are in .venv, or not needed by what we import.
S3_PACKAGES := s3tokenizer==0.3.0 onnx==1.23.2 ml-dtypes==0.6.0
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# A relative one is meant from here; the recipe and tests run elsewhere.
ifneq ($(ESPNET_ROOT),)
ifeq ($(filter /%,$(ESPNET_ROOT)),)
override export ESPNET_ROOT := $(abspath $(ESPNET_ROOT))
endif
endif

.PHONY: help demo test test-all test-units integration bench lint format setup env espnet lock clean

help: ## this list
	@echo "make <target>; options of the recipe: make demo ARGS='--stage align'"
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

demo: setup ## train and score a TASTE model on the embedded corpus (ARGS: run.sh's)
	cd egs2/taste && ./run.sh $(ARGS)

test: setup ## the default tests (ARGS: pytest's)
	$(PYTEST) $(ARGS)

test-all: setup .s3/stamp ## every test: also slow ones, downloaded weights and recipe stages
	PYTHONPATH=$(CURDIR)/.s3 $(PYTEST) -m "" $(ARGS)

test-units: setup .s3/stamp ## the tests of S3 units, which want a package beside .venv
	PYTHONPATH=$(CURDIR)/.s3 $(PYTEST) tests/unit/test_s3.py tests/unit/test_gpu_forward.py $(ARGS)

integration: setup ## recipe stages on a tiny configuration, as tests
	$(PYTEST) -m recipe $(ARGS)

bench: env ## the benchmarks that need no trained model, one table each
	@shopt -s nullglob; for script in benchmarks/bench_*.py; do \
		echo "== $${script}"; $(BIN)/python "$${script}" $(ARGS) || exit 1; \
	done

lint: env ## black, isort, flake8, shellcheck: the hooks of pre-commit
	$(BIN)/black --check $(PYTHON_FILES)
	$(BIN)/isort --check-only $(PYTHON_FILES)
	$(BIN)/flake8 $(PYTHON_FILES)
	git ls-files -z '*.sh' .ci/run | xargs -0 -r "$$(command -v $(BIN)/shellcheck || echo shellcheck)"

format: env ## let black and isort rewrite the files
	$(BIN)/isort --quiet $(PYTHON_FILES)
	$(BIN)/black --quiet $(PYTHON_FILES)

setup: env espnet ## .venv and ESPnet's recipe tools, without running anything

env: ## .venv with the locked packages
	@tools/setup_env.sh

espnet: env ## ESPnet's source tree (yours, if ESPNET_ROOT is set)
	@tools/get_espnet.sh >/dev/null

lock: env ## requirements.lock from setup.py (ARGS=--upgrade for newer versions)
	$(BIN)/python tools/lock.py --uv "$$(command -v uv || echo .uv/bin/uv)" $(ARGS)

.s3/stamp: Makefile | env
	rm -rf .s3
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target .s3 $(S3_PACKAGES)
	touch $@

clean: ## remove environment, ESPnet's tree and caches; never data, dump or exp
	rm -rf .venv .venv.lock .uv .s3 .espnet .espnet.* *.egg-info build .pytest_cache .hypothesis
	rm -f egs2/taste/utils egs2/taste/steps egs2/taste/scripts egs2/taste/pyscripts
	find espnet_taste tests tools -name __pycache__ -prune -exec rm -rf {} +
