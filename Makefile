# Two commands do everything on a machine with python3.11+, pip and make: `make demo` and `make test`.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV   ?= .venv
BIN    := $(VENV)/bin
# The name holds a digest of what is to be installed, so an older environment never hides a missing install step.
STAMP  := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: demo test test-slow lint bench matrix docs install clean

install: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; found " + sys.version)'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	touch $@

demo: $(STAMP)
	$(BIN)/snnsl run recipes/digits.yaml

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 -m 'not slow'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/run.py

matrix:
	$(PYTHON) tests/matrix/run.py

docs: $(STAMP)
	$(BIN)/sphinx-build -W -b html docs docs/_build

clean:
	rm -rf $(VENV) .matrix docs/_build dist .pytest_cache .mypy_cache .ruff_cache
