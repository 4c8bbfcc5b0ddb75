# make demo | test | bench-headline | lint | format | wheel | deploy-test | build-test | clean. Everything lives in build/.
PYTHON ?= python3
VENV ?= build/venv
# The target, and this machine's GPU if there is one.
CONVT_CUDA_ARCHS ?= $(shell (echo 89; nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null \
  | tr -d . | grep -xE '80|86|89|90|100|120') | sort -nu | paste -sd,)
export CONVT_CUDA_ARCHS

BIN := $(VENV)/bin
DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.convt-$(CONVT_CUDA_ARCHS)
SOURCES := $(shell find aot cmake csrc python -type f -not -path '*/__pycache__/*') \
           CMakeLists.txt pyproject.toml VERSION
CXX_SOURCES := $(shell find csrc examples tests -name '*.[ch]' -o -name '*.[ch]pp')

.PHONY: demo test bench-headline lint format wheel deploy-test build-test clean

demo: $(INSTALLED)  ## build, install, run the headline layer
	$(BIN)/python -m examples.headline

test: $(INSTALLED)  ## the CPU suite, and the GPU suite where there is one
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n auto --dist worksteal

bench-headline: $(INSTALLED)  ## the headline layer and its relatives against cuDNN; needs a GPU
	$(BIN)/python -m benchmarks.headline

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist .stubtest-allowlist convt._C convt._eager
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: $(DEPENDENCIES)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

# What deploy-test installs the wheel beside.
TORCH ?= 2.10.0 2.13.0 newest

wheel: $(DEPENDENCIES)  ## dist/*.whl, for every Linux that torch's own wheels are for
	rm -rf build/wheel dist
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip wheel --no-deps --no-build-isolation --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --only-plat --plat manylinux_2_28_$(shell uname -m) \
	  --exclude 'libtorch*.so' --wheel-dir dist build/wheel/*.whl

deploy-test: wheel  ## the wheel in fresh environments, every test in each
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.deploy dist/*.whl --torch $(TORCH)

build-test: $(INSTALLED)  ## a full build for two architectures on two cores: time and size
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m slow -s

clean:
	rm -rf build dist

$(DEPENDENCIES): requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(INSTALLED): $(DEPENDENCIES) $(SOURCES)
	rm -f $(VENV)/.convt-*
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall .
	touch $@
