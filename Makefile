PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: quickstart test test-slow check format tables install
.DELETE_ON_ERROR:

quickstart: install  ## set up, run the built-in suite, show the leaderboard; write it as a page, and Figure 2 beside it
	$(BIN)/clvr-bench run quickstart
	$(BIN)/clvr-bench figure2 --results results --suite quickstart --output results/quickstart/figure2.png
	$(BIN)/clvr-bench preview augmentations --output results/quickstart/augmentations.png
	$(BIN)/clvr-bench preview pretext-tasks --output results/quickstart/pretext-tasks.png
	$(BIN)/clvr-bench report --results results --suite quickstart --output results/quickstart/report.html \
		--picture results/quickstart/augmentations.png --picture results/quickstart/pretext-tasks.png

test: install  ## run the tests
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: install  ## pretrain each task that a few minutes are enough for, and see that it learns; check the largest encoders: an hour or more
	$(BIN)/python -m pytest -m slow

check: install  ## formatting, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PARALLEL)

format: install  ## mend formatting and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: install  ## write the documents' tables and pictures and the tasks' pages anew from the committed records, and all of them as a page
	$(BIN)/python docs/results.py
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/tasks.py
	$(BIN)/clvr-bench report --results results --output results/report.html \
		--picture docs/images/augmentations.png --picture docs/images/pretext-tasks.png

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
