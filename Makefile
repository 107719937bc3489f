# make run    train the miniature from random weights to a thinking agent; prints and plots the scoreboard
# make check  style, import directions, all tests that are not slow: a minute or so
# make test   style, import directions, all tests, every notebook
# make mutants   small wrong edits, one at a time: do the tests notice each? (hours)
# make lab    open the course in JupyterLab
# make publish   for maintainers: put the finished run of data/run in the place of what is shipped
# Each makes .venv first and installs requirements.txt, once. Another Python: make run PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --nbval-kernel-startup-timeout=120
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: run style check test mutants lab publish
.DELETE_ON_ERROR:

run: $(STAMP)
	@$(BIN)/python -m kimi_mini run $(ARGS)

publish: $(STAMP)
	@$(BIN)/python -m kimi_mini publish $(ARGS)

style: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/lint-imports --no-logo

check: style
	@$(PYTEST) tests -m "not slow"

test: style
	@$(PYTEST) tests
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then \
		$(PYTEST) $(NBVAL) notebooks/; \
	else echo "no notebook yet: nothing for nbval to run"; fi

mutants: $(STAMP)
	@PYTHONPATH="$(CURDIR)" $(BIN)/python tests/mutants/run.py $(ARGS)

lab: $(STAMP)
	@PYTHONPATH="$(CURDIR)" $(BIN)/jupyter lab --notebook-dir=notebooks \
		--ContentsManager.pre_save_hook=kimi_mini.course.notebook.before_saving

$(STAMP): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "kimi_mini needs Python 3.11 or newer, and there is no $(PYTHON) here"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "kimi_mini needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "installing into $(VENV) (once; some minutes)"
	@$(PIP) $$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)
	@$(PIP) -r requirements.txt
	@touch $@
