# make demo, make test: everything from nothing but Python 3.10+
# make test NNUNET=2.6.4: all tests with that release of nnU-Net, in an environment of its own
# make test PYTHON=python3.12 VENV=.venv-3.12: all tests with another Python
PYTHON ?= python3
NNUNET ?=
VENV ?= .venv$(if $(NNUNET),-$(NNUNET))
BIN := $(VENV)/bin

.PHONY: install demo test hostile lint results

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[test,convert,onnx]" $(if $(NNUNET),nnunetv2==$(NNUNET))
	touch $@

demo: install
	$(BIN)/nnunet-skd demo

# The quick tests first; nnU-Net's real commands after them. nnU-Net takes all cores on the CPU whatever OMP_NUM_THREADS
# says: threads of two such commands must not spin while they wait for each other. The slow tests of one file share what
# they train.
test: export OMP_NUM_THREADS = 1
test: export OMP_WAIT_POLICY = passive
test: install lint
	$(BIN)/pytest -n 2 -m "not slow"
	$(BIN)/pytest -n 2 --dist loadfile -m slow

# All that can be wrong with a file, for every command, and 100 kills of trainings: an hour or two. HOSTILE_KILLS=6: fewer.
hostile: export OMP_NUM_THREADS = 1
hostile: export HOSTILE = all
hostile: install
	$(BIN)/pytest -q --timeout 7200 tests/hostile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What experiments/results holds as the tables of docs/results.md and docs/cost.md.
results: install
	$(BIN)/python experiments/study.py page docs/results.md
	$(BIN)/python experiments/study.py page docs/cost.md
