# make demo, make test: everything from nothing but Python 3.10+
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[test,convert,onnx]"
	touch $@

demo: install
	$(BIN)/nnunet-skd demo

# the quick tests first; nnU-Net's real commands after them
test: install lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
