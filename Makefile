# make run    install into .venv, run the main job, say where table and figure lie
# make test   install and run the tests
# make cluster  run the tests that need SLURM, on a throw-away one
# make compare   run the small sweep of results/baseline again and compare: fails where something got worse
# Another interpreter or other versions: make run PYTHON=python3.12 CONSTRAINTS=/dev/null
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin

COMPARE := $(BIN)/python -m harness.compare results/baseline results/ci --complete --tolerance 0.0001

.PHONY: run test check cluster compare summary report format clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(BIN)/python -m harness -m experiment=main

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

cluster: $(VENV)/.installed  # the tests that need SLURM, on a throw-away one (Debian packages, installed where absent)
	$(BIN)/python -m pytest -m cluster tests/runs/cluster

compare: $(VENV)/.installed
	rm -rf results/ci
	$(BIN)/python -m harness -m experiment=baseline results_dir=results/ci plots_dir=plots/ci
	$(COMPARE) --plots-dir plots/ci

summary:  # of the last `make compare`, as Markdown
	@$(COMPARE) --format markdown

report:  # of the last `make compare`
	$(BIN)/python -m harness.report results/ci --output plots/ci/report.html

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) -e '.[demo,dev,slurm,train]'
	touch $@
