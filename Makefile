# The stages as files that depend on each other: make runs only the stages that are out of date.
#
#   make demo    everything on drawn faces, in .venv: no account, no download beyond pip
#   make all     the same on the Kaggle dataset
#   make test    lint and the whole test suite, with its own set-up
#   make help    all targets

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

# What differs between the two datasets. `make demo` sets them for the drawn one.
SOURCE ?= data/face-expression-recognition-dataset
DOWNLOAD ?=
DATA ?= processed_data
RESULTS ?= results
CNN_FLAGS ?= --preset quick

SPLITS := $(DATA)/dataset.json
BASELINE := $(RESULTS)/baseline_metrics.json
SOFTMAX := $(RESULTS)/softmax_metrics.json
MLP := $(RESULTS)/basic_nn_metrics.json
CNN := $(RESULTS)/advanced_metrics.json
MODELS := $(BASELINE) $(SOFTMAX) $(MLP) $(CNN)
STAGE_FLAGS := --data-dir $(DATA) --results-dir $(RESULTS)

.DELETE_ON_ERROR:
.PHONY: all demo live test check format setup clean help

all: $(RESULTS)/comparison.txt  ## the whole pipeline on the Kaggle dataset (CNN_FLAGS= for the preset default)

demo:  ## the whole pipeline and the live demo on drawn faces, below results/sample/
	$(MAKE) all results/sample/live.csv SOURCE=data/sample DOWNLOAD=--sample \
	  DATA=processed_data/sample RESULTS=results/sample CNN_FLAGS="--preset quick --epochs 10"

live: $(VENV)/.installed  ## the live demo on camera 0, with the reference weights
	$(PY) live_inference.py

$(SOURCE): | $(VENV)/.installed
	$(PY) download_dataset.py $(DOWNLOAD)

$(SPLITS): dataset_preparation.py | $(SOURCE)
	$(PY) dataset_preparation.py --source $(SOURCE) --data-dir $(DATA)

$(BASELINE): $(SPLITS) baseline.py
	$(PY) baseline.py $(STAGE_FLAGS)

$(SOFTMAX): $(SPLITS) softmax.py
	$(PY) softmax.py $(STAGE_FLAGS)

$(MLP): $(SPLITS) basic_nn.py
	$(PY) basic_nn.py $(STAGE_FLAGS)

$(CNN): $(SPLITS) advanced_network.py
	$(PY) advanced_network.py $(STAGE_FLAGS) $(CNN_FLAGS)

$(RESULTS)/comparison.txt: $(MODELS) compare_results.py
	$(PY) compare_results.py --results-dir $(RESULTS)

$(RESULTS)/live.csv: $(CNN) live_inference.py
	$(PY) live_inference.py --source sample --weights $(RESULTS)/advanced_model.pth --no-window \
	  --output $(RESULTS)/live.mp4 --log $@

setup: $(VENV)/.installed  ## .venv with what the scripts need

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed; name it with: make PYTHON=python3.11" >&2; false; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(PY) -m pip install -r requirements-dev.txt
	touch $@ $(VENV)/.installed

check: $(VENV)/.installed-dev  ## lint and formatting
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: $(VENV)/.installed-dev  ## formats the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# There are as many test processes as cores, each with one thread; each test file runs in one of them,
# the longest first (see tests/conftest.py).
test: check  ## lint and the test suite; SLOW=1 adds the slow tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder \
	  $(if $(SLOW),-m "slow or not slow")

clean:  ## removes splits, drawn faces and demo results; keeps downloads and results/
	rm -rf processed_data data/sample results/sample

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
