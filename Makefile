# make demo   sets everything up, checks every derivative, trains on glyphs, leaves pictures in runs/demo
# make test   sets everything up and runs the tests
# Both need Python >= 3.11 and nothing else; everything they make is in .venv and runs.
# make gpu    what only a GPU can show, into benchmarks/gpu/gpu.json. It makes no .venv and fetches nothing: it runs with PYTHON as it is,
#             which needs NumPy, SciPy, CuPy and pytest. GPU="--only ladder tests" passes options on (GPU=--help lists them)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test gpu lint clean

demo: $(VENV)/installed
	$(RUN)/refmaml verify --kernels reference
	$(RUN)/refmaml demo

# One BLAS thread in each of the test processes: together they use every core already.
test: $(VENV)/installed-test
	OPENBLAS_NUM_THREADS=1 $(RUN)/python -m pytest -n auto --dist worksteal

gpu:
	$(PYTHON) benchmarks/gpu/run.py $(GPU)

lint: $(VENV)/installed-test
	$(RUN)/pip install --quiet "ruff>=0.8"
	$(RUN)/ruff check .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "refmaml: expected Python >= 3.11, got $$($(PYTHON) --version) as $(PYTHON); try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml setup.py
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# CuPy can be imported without a GPU: the names that are asked of it are held against its own (70 MB).
$(VENV)/installed-test: $(VENV)/installed
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,cuda13]"
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) runs build dist *.egg-info
