# Two commands for a fresh machine with python3, make and pip: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STORAGE := $(VENV)/storage
TESTS := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo report storage test cluster check lint format clean

demo: $(READY)  ## set up, run the experiment of config.yaml, and print its answer
	$(BIN)/snakemake --cores 1 --resources gpu=1

report: $(READY)  ## Snakemake's own report of the last run: every figure with the code and the run times behind it
	$(BIN)/snakemake --report results/report.html

storage: $(STORAGE)/.ready  ## the plugin for object stores, beside the environment; docs/object-store.md

test: $(READY) $(STORAGE)/.ready  ## set up, and run every test that needs no GPU
	$(TESTS) -m "not gpu"

cluster: $(READY)  ## set up, and run the pipeline and its faults on a real Slurm of one machine (root on Debian)
	$(BIN)/python -m pytest -m slow tests/cluster

check: lint  ## style, types, workflow lint and the fast tests
	$(TESTS)

lint: $(READY)  ## style, types and workflow lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/snakemake --lint

format: $(READY)  ## bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow/rules

clean:  ## remove the environment; results stay
	rm -rf $(VENV)

$(READY): envs/requirements.lock envs/packages.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r envs/packages.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(STORAGE)/.ready: $(READY) envs/storage.lock
	rm -rf $(STORAGE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(STORAGE) -r envs/storage.lock
	touch $@
