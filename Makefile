# The two commands of the README are `make demo` and `make test`; each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
# Address of an index of CPU-only torch wheels, for Linux machines without GPU whose default index has CUDA builds alone.
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup demo test lint docs bench ui clean help

help:  ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: .venv/.installed  ## Make .venv and install the package and its development tools

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11 " if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (some minutes the first time)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) 'torch==2.13.0'
	@$(PIP) --editable '.[dev]'
	@touch $@

demo: setup  ## Render the demo dataset, run the whole chain through Dagster, print what it cost and what it is worth
	@$(BIN)/lvdd demo

test: lint  ## All tests, linters, types and layering contracts
	@$(BIN)/python -m pip check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: setup  ## Linters, types and layering contracts only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  ## Build the documentation into site/, broken links as errors; `mkdocs serve` shows it while it is written
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

bench: setup  ## The measurements behind the documentation's figures
	$(BIN)/python benchmarks/demo_learnability.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/autoencoders.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/tucker.py
	$(BIN)/python benchmarks/coding.py
	$(BIN)/python benchmarks/video_codecs.py
	$(BIN)/python benchmarks/signal_kept.py

ui: setup  ## Open Dagster's UI on http://127.0.0.1:3000, for this machine alone (docs/automation.md)
	$(BIN)/dagster dev --workspace workspace.yaml --host 127.0.0.1

clean:  ## Remove what the pipeline made; videos, registry and .venv stay
	rm -rf data/*.zarr data/release data/eval_report data/.dagster
