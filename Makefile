# make quickstart   install, train a small FastInst on synthetic data, evaluate it, draw its predictions
# make test         install if needed, run the whole test suite
# make check        lint, format, types, C++ format
# make gpu-check    build, test, train and measure on a CUDA GPU
# make asan         run the tests of the CPU kernels under AddressSanitizer, with every instruction set
# make clean        remove what the targets above made
#
# PYTHON=/path/to/python uses that environment instead of making .venv.

VENV := .venv
OUTPUT := output/quickstart
SHAPES := datasets/shapes
CONFIG := configs/fastinst/fastinst_tiny.py

ifdef PYTHON
PY := $(PYTHON)
READY := installed
else
PY := $(VENV)/bin/python
READY := $(VENV)/installed
endif

.PHONY: quickstart test check gpu-check asan clean installed
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile | head -7

$(VENV)/bin/python:
	@base=$$(for name in python3 python3.13 python3.12 python3.11 python3.10; do \
	    command -v $$name >/dev/null && $$name -c \
	      'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2])' 2>/dev/null && \
	      echo $$name && break; done); \
	test -n "$$base" || { echo "Python 3.10 or newer with the venv module is needed"; exit 1; }; \
	echo "Making $(VENV) with $$($$base --version)"; $$base -m venv $(VENV)

# torch comes before the project: the project's build asks the installed torch for its headers.
define install
$(PY) -m pip install --quiet --upgrade pip "setuptools>=77,<81" wheel ninja && \
$(PY) -m pip install --quiet "torch>=2.10" torchvision && \
PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --no-build-isolation --editable ".[test]"
endef

$(VENV)/installed: $(VENV)/bin/python setup.py pyproject.toml $(shell find csrc -type f)
	$(install)
	@touch $@

installed:
	@$(PY) -c "import queryseg, pytest" 2>/dev/null || ($(install))

quickstart: $(READY)
	$(PY) -m queryseg.data.shapes --output $(SHAPES)
	$(PY) train_net.py --config-file $(CONFIG) train.output_dir=$(OUTPUT)
	$(PY) -m queryseg.tools.demo --config-file $(CONFIG) --weights $(OUTPUT)/model_final.pth \
	  --dataset shapes_val --grid $(OUTPUT)/predictions.png
	@echo "Results: $(OUTPUT)/results.json   Picture: $(OUTPUT)/predictions.png"

test: $(READY)
	$(PY) -m pytest

check: $(READY)
	@$(PY) -c "import ruff, mypy, clang_format" 2>/dev/null || $(PY) -m pip install --quiet ruff mypy clang-format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c "from clang_format import clang_format; clang_format()" --dry-run --Werror \
	  $$(find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

gpu-check: $(READY)
	@$(PY) benchmarks/gpu_check.py

asan: $(READY)
	$(PY) tests/sanitize.py

clean:
	rm -rf $(VENV) build $(OUTPUT) $(SHAPES) .pytest_cache .ruff_cache .mypy_cache
	rm -rf src/queryseg/*.so src/*.egg-info
