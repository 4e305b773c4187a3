# make run    set up, run the main job          make test   set up, run the whole test suite
# make check  look, change nothing              make fix    format, and mend what can be mended
# make ui     browse the runs                   make bench  measure speed and memory
# make paper-env   the published experiment's own packages, apart
# Needs Python 3.11 or newer and make; another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := $(VENV)/.tools
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run test check fix ui bench setup paper-env

run: $(READY)
	$(BIN)/python run.py
	@echo
	@echo "Look next:   make ui                               browse this run in MLflow"
	@echo "             $(BIN)/python run.py --help         the groups to choose from"
	@echo "             $(BIN)/python run.py method=static  the embedding table alone"

test: $(TOOLS)
	$(BIN)/python -m pytest

check: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(READY)
	$(BIN)/python run.py ui

bench: $(TOOLS)
	$(BIN)/python -m bench

setup: $(TOOLS)

# The published experiment's own packages, in a venv of their own: they cannot live beside transformers 5.
# Then: PYTHONPATH=src .venv-paper/bin/python -W ignore paper/check_awq.py   (our AWQ reader against AutoAWQ's)
paper-env: .venv-paper/.ready

.venv-paper/.ready: paper/constraints.txt
	test -x .venv-paper/bin/python || $(PYTHON) -m venv .venv-paper
	.venv-paper/bin/python -m pip install --quiet --disable-pip-version-check --constraint paper/constraints.txt torch
	.venv-paper/bin/python -m pip install --quiet --disable-pip-version-check --constraint paper/constraints.txt \
	  transformers==4.51.3 compressed-tensors==0.9.0 autoawq==0.2.9
	PYTHONPATH=src .venv-paper/bin/python -W ignore paper/check_awq.py
	@touch $@

# Made anew when what must be installed has changed. torch comes first and at its tested version, so that no
# other package's looser wish brings a different build.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pairprobe needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 2; }
	@echo "Installing into $(VENV), once, in some minutes: torch (its download is the largest part) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	@echo "... then transformers, MLflow and the rest, a minute or two ..."
	$(INSTALL) --editable '.[minilm,gguf]'
	@touch $@

# What tests, checks and bench need besides, in the same place.
$(TOOLS): $(READY)
	@echo "Installing what tests and checks need into $(VENV), once ..."
	$(INSTALL) --editable '.[minilm,gguf,dev]'
	@touch $@
