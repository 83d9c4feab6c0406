# make demo              installs, checks every derivative, trains on glyphs, draws into runs/demo
# make test              installs and runs the tests: some minutes on two cores
# make test-slow         the tests that take longer: random nets in numbers, kills, fuzzing,
#                        NVRTC for every GPU
# make test-frameworks   installs PyTorch, JAX and other libraries (2 GB) and runs the tests
#                        that compare refmaml with them. REFMAML_DATA names the folder of
#                        Omniglot's archives: make test-frameworks REFMAML_DATA=DIR
# make test-long         the doctor's tables of forty mistakes on nets of PyTorch: many minutes
# make test-pages        the tests of docs/pages/ in Chromium, which the system must have (Debian:
#                        apt-get install chromium chromium-driver)
# make pages             builds docs/pages/ from docs/pages/src/
# make lint              ruff check, ruff format --check, mypy
# They need Python >= 3.11 and nothing else. Everything that they make is in .venv, .venv-frameworks
# and runs.
# make gpu               what only a GPU can show, into benchmarks/gpu/gpu.json. It makes no .venv
#                        and needs no network: it runs with PYTHON as it is, which needs NumPy,
#                        SciPy, CuPy and pytest. GPU="--only ladder tests" passes options on
#                        (GPU=--help lists them)

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --editable
FRAMEWORKS := .venv-frameworks
# One BLAS thread in each of the test processes: together they use every core already.
PYTEST := -m pytest -n auto --dist worksteal
export OPENBLAS_NUM_THREADS ?= 1
export REFMAML_DATA

.PHONY: demo test test-slow test-frameworks test-long test-pages pages gpu lint clean

demo: $(VENV)/installed
	$(RUN)/refmaml verify --kernels reference
	$(RUN)/refmaml demo

test: $(VENV)/installed-test
	$(RUN)/python $(PYTEST) -m "not slow and not frameworks and not browser"

test-slow: $(VENV)/installed-test
	$(RUN)/python $(PYTEST) -m "slow and not frameworks and not gpu and not browser"

test-frameworks: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/python $(PYTEST) -m "frameworks and not gpu and not long"

test-long: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/python $(PYTEST) -m "frameworks and long"

# Two browsers at a time: each takes a core and some 200 MB.
test-pages: $(VENV)/installed-browser
	$(RUN)/python -m pytest -n 2 --dist worksteal -m browser

pages: $(VENV)/installed-pages
	$(RUN)/python docs/pages/src/build.py

gpu:
	$(PYTHON) benchmarks/gpu/run.py $(GPU)

lint: $(VENV)/installed-lint
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "refmaml: expected Python >= 3.11, got $$($(PYTHON) --version) as $(PYTHON); try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $*

$(VENV)/installed: $(VENV)/bin/python pyproject.toml setup.py
	$(RUN)/python $(INSTALL) .
	@touch $@

# CuPy can be imported without a GPU: a test compares the names that refmaml uses with CuPy's own (70 MB).
$(VENV)/installed-test: $(VENV)/installed
	$(RUN)/python $(INSTALL) ".[test,cuda13]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-browser: $(VENV)/installed-test
	$(RUN)/python $(INSTALL) ".[browser]"
	@touch $@ $(VENV)/installed $(VENV)/installed-test

$(VENV)/installed-pages: $(VENV)/installed
	$(RUN)/python $(INSTALL) ".[pages]"
	@touch $@ $(VENV)/installed

$(VENV)/installed-lint: $(VENV)/installed
	$(RUN)/python $(INSTALL) ".[lint]"
	@touch $@ $(VENV)/installed

$(FRAMEWORKS)/installed: $(FRAMEWORKS)/bin/python pyproject.toml setup.py
	$(FRAMEWORKS)/bin/python $(INSTALL) ".[frameworks]"
	@touch $@

clean:
	rm -rf $(VENV) $(FRAMEWORKS) runs build dist *.egg-info
