# Everything runs in .venv, which `make setup` makes once, and again when the requirements change.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Tried in this order: PaddleNLP and PaddleClas are published for 3.11, paddle2onnx, which exports to ONNX, up to 3.12.
PYTHONS := python3.11 python3.12 python3.13 python3
DEMO := runs/emoji
# The version and the hashes of every package for this Python. `make constraints` writes these files.
CONSTRAINTS = constraints-$$($(PYTHON) -c 'import sys; print("3.%d" % sys.version_info[1])').txt
# Of what pip prints: every twentieth package, what is large, and the beginning of the last step, which takes a minute.
PROGRESS := n=0; while read -r line; do case "$$line" in \
    Collecting*) n=$$((n + 1)); if [ $$((n % 20)) = 0 ]; then echo "  $$n packages found"; fi;; \
    Downloading*[0-9][0-9].[0-9]' MB)' | Using\ cached*[0-9][0-9].[0-9]' MB)') echo "  $${line%%-*} ($${line\#\#*\(}";; \
    Installing\ collected*) echo "  unpacking $$n packages (about a minute)";; esac; done

# Where it is set, every process compiles the package and the tests again.
unexport PYTHONDONTWRITEBYTECODE

SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
PEERS_VENV := .venv-peers

.PHONY: help setup demo demo-steps search test test-fast test-hostile test-like-gpu test-slow test-gpu gpu-day peers lint \
    doctor constraints docs

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

setup: $(STAMP) ## make .venv and install everything for this Python into it (about 2 GB)

# The stamp is the last step: an installation that was cut off is taken up again. Paddle's GPU build, where it is
# installed, stays: it and the CPU build unpack into the same folder, so the CPU build's lines are left out.
$(STAMP): requirements.txt setup.py pyproject.toml $(wildcard constraints-*.txt)
	@if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	    python=$$(for name in $(PYTHONS); do \
	        $$name -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && \
	            echo $$name && break; done); \
	    if [ -z "$$python" ]; then \
	        echo 'Python 3.11, 3.12 or 3.13 with its venv module is needed, and none of $(PYTHONS) is one.' >&2; \
	        echo 'Install one (pyenv, conda or the package manager), and run make again.' >&2; \
	        exit 1; fi; \
	    echo "Making $(VENV) with $$python"; $$python -m venv $(VENV); fi
	@$(PYTHON) -c 'import sys; print("Python 3.%d: %s" % (sys.version_info[1], { \
	    11: "the whole set, with PaddleNLP and PaddleClas", \
	    12: "without PaddleNLP and PaddleClas, which are published for Python 3.11", \
	    13: "without PaddleNLP and PaddleClas (Python 3.11) and the export to ONNX (Python 3.11 and 3.12)", \
	}[sys.version_info[1]]))'
	@echo 'Installing into $(VENV): 2 GB, two to ten minutes, depending on the network'
	@constraints=$(CONSTRAINTS); \
	if $(PYTHON) -m pip show --quiet paddlepaddle-gpu 2>/dev/null; then \
	    sed '/^paddlepaddle==/,/[^\\]$$/d' $$constraints >$(VENV)/constraints.txt; \
	    constraints=$(VENV)/constraints.txt; fi; \
	$(PYTHON) -m pip install --progress-bar off --disable-pip-version-check \
	    --require-hashes --no-deps -r $$constraints | { $(PROGRESS); }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# A small model trains fastest with one thread, next to the process that loads. A second run finds the finished training and
# goes straight to the evaluation and the report.
TRAIN_DEMO := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTHON) tools/train.py -c configs/demo/faster.yaml --resume

demo: demo-steps $(STAMP) ## train, evaluate and report on the demo drawings (ten minutes on 2 cores, with the installation)
	@echo; echo '2 of 4: train on 6,317 drawings for 1,400 steps (six minutes; then half a minute is left)'
	@$(TRAIN_DEMO)
	@echo; echo '3 of 4: score 1,555 drawings of a style that the model has never seen (ten seconds)'
	@$(PYTHON) tools/eval_retrieval.py --checkpoint $(DEMO) --data demo_data/emoji-test.tar --language zh en \
	    --only kind=object --pixel-baseline demo_data/emoji-train.tar
	@echo; echo '4 of 4: write a page with curves, and queries with their best drawings (ten seconds)'
	@$(PYTHON) tools/report.py --run $(DEMO) --data demo_data/emoji-test.tar
	@echo; printf '%s\n' 'Open $(DEMO)/report.html in a browser. Three commands to try next:' '' \
	    '  make search' '    opens a page that finds the drawings by a sentence or an image' \
	    '  $(PYTHON) docs/examples/zero_shot_chinese.py $(DEMO) IMAGE ... --classes 猫 狗 汽车' \
	    '    names what your images show, in words of your choice' \
	    '  $(PYTHON) tools/compare.py $(DEMO) --pixel-baseline demo_data/emoji-train.tar --data demo_data/emoji-test.tar' \
	    '    says with an interval by how much the model beats a comparison of pixels, and writes a page of examples'

demo-steps:
	@echo '1 of 4: install (once; nothing to do if $(VENV) is up to date)'

# The model is trained first if it is not there; what is indexed already is not encoded again.
search: $(STAMP) ## index the demo's drawings, with the concepts as tags, and open a page to search them
	@$(TRAIN_DEMO)
	@$(PYTHON) tools/search.py build --index indexes/emoji --checkpoint $(DEMO) \
	    --data demo_data/emoji-train.tar demo_data/emoji-val.tar demo_data/emoji-test.tar --texts demo_data/emoji-train.tar
	@$(PYTHON) tools/search.py serve --index indexes/emoji --root .

# A test that hangs prints the stacks of its threads and has failed; none may wait so long (tests/conftest.py, PATIENCE).
test: $(STAMP) ## run the whole check before a merge, in two processes
	@$(PYTHON) -m pytest -n 2 --dist worksteal -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

test-fast: $(STAMP) ## run the tests of the core's parts, in one process each, for every save
	@$(PYTHON) -m pytest -n 2 --dist worksteal --fast --ignore=tests/apps

test-hostile: $(STAMP) ## run the tests of bad, damaged and hostile input, of full disks and of every bad argument
	@$(PYTHON) -m pytest -n 2 --dist worksteal tests/hostile

test-like-gpu: $(STAMP) ## run exports, plans, steps and towers on the Python paths of a GPU build, without a GPU
	@$(PYTHON) -m pytest -n 2 --dist worksteal -m "slow or not slow" tests/like_gpu_build

test-slow: $(STAMP) ## run the tests that take minutes: other ranks, kills, pages
	@$(PYTHON) -m pytest -m slow

test-gpu: $(STAMP) ## run the tests that need GPUs, and leave gpu_report/ with what they found
	@mkdir -p gpu_report
	@{ $(PYTHON) tools/doctor.py; nvidia-smi; } >gpu_report/machine.txt 2>&1 || true
	@NVIDIA_TF32_OVERRIDE=0 $(PYTHON) -m pytest tests/gpu -rs --junitxml=gpu_report/tests.xml
	@echo 'gpu_report/ holds the results'

gpu-day: $(STAMP) ## check and measure everything on GPUs for an hour, and pack gpu_report.tar.gz to send back
	@$(PYTHON) tools/gpu_day.py --output gpu_report

# PyTorch and Paddle are kept apart: each brings libraries that the other one may find first.
peers: ## make the expected embeddings of OpenCLIP's configurations again, by its own code in an environment of its own
	@test -x $(PEERS_VENV)/bin/python || python3 -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip install -q --disable-pip-version-check \
	    -r tests/fixtures/open_clip_configs/requirements.txt
	@$(PEERS_VENV)/bin/python tests/fixtures/open_clip_configs/make.py

lint: $(STAMP) ## check style, format and types, and that imports go downwards only
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/lint-imports --cache-dir .ruff_cache/imports
	@$(VENV)/bin/mypy --cache-dir .ruff_cache/mypy

doctor: $(STAMP) ## check this installation, line by line
	@$(PYTHON) tools/doctor.py

# A file that is there already keeps its versions, where the requirements allow them: delete it to take the newest ones.
constraints: ## resolve constraints-3.*.txt anew, with hashes (needs uv, and the three versions of Python)
	@for version in 3.11 3.12 3.13; do \
	    uv pip compile --quiet --python $$version --generate-hashes --no-annotate --extra dev \
	        --custom-compile-command 'make constraints' setup.py -o constraints-$$version.txt >/dev/null || exit 1; done

docs: $(STAMP) ## build the pages and the API reference into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo 'site/index.html'
