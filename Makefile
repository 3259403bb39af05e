# Everything runs in .venv, which `make setup` makes once, and again when the requirements change.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# Tried in this order: PaddleNLP and PaddleClas are published for 3.11.
PYTHONS := python3.11 python3.13 python3.12 python3
DEMO := runs/emoji

.DEFAULT_GOAL := help
.PHONY: help setup demo search test test-fast test-slow test-gpu lint doctor docs

help: ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

setup: $(STAMP) ## make .venv and install everything for this Python into it (about 2 GB)

# The stamp is the last step: an installation that was cut off is taken up again.
$(STAMP): requirements.txt setup.py pyproject.toml
	@if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
	    python=$$(for name in $(PYTHONS); do \
	        $$name -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && \
	            echo $$name && break; done); \
	    if [ -z "$$python" ]; then \
	        echo 'Python 3.11, 3.12 or 3.13 with its venv module is needed, and none of $(PYTHONS) is one.' >&2; \
	        echo 'Install one (pyenv, conda or the package manager), and run make again.' >&2; \
	        exit 1; fi; \
	    echo "Making $(VENV) with $$python"; $$python -m venv $(VENV); fi
	@$(PYTHON) -c 'import sys; print("Python %d.%d: %s" % (*sys.version_info[:2], "the whole set, with PaddleNLP and PaddleClas" \
	    if sys.version_info[:2] == (3, 11) else "without PaddleNLP and PaddleClas, which are published for Python 3.11"))'
	@echo 'Installing into $(VENV) (about 2 GB, a few minutes)'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# Two processes share every batch. A second run finds the finished training and goes straight to the evaluation and the report.
demo: $(STAMP) ## train, evaluate and report on the demo drawings (at most 12 minutes on 2 cores)
	@$(PYTHON) tools/train.py -c configs/demo/emoji.yaml --resume --processes 2
	@$(PYTHON) tools/eval_retrieval.py --checkpoint $(DEMO) --data demo_data/emoji-test.tar --language zh en \
	    --only kind=object --pixel-baseline demo_data/emoji-train.tar
	@$(PYTHON) tools/report.py --run $(DEMO) --data demo_data/emoji-test.tar

# The model is trained first if it is not there; what is indexed already is not encoded again.
search: $(STAMP) ## index the demo's drawings, with the concepts as tags, and open a page to search them
	@$(PYTHON) tools/train.py -c configs/demo/emoji.yaml --resume --processes 2
	@$(PYTHON) tools/search.py build --index indexes/emoji --checkpoint $(DEMO) \
	    --data demo_data/emoji-train.tar demo_data/emoji-val.tar demo_data/emoji-test.tar --texts demo_data/emoji-train.tar
	@$(PYTHON) tools/search.py serve --index indexes/emoji --root .

test: $(STAMP) ## run the whole check before a merge, in two processes
	@$(PYTHON) -m pytest -n 2 --dist worksteal

test-fast: $(STAMP) ## run the tests of the parts, in one process each, for every save
	@$(PYTHON) -m pytest -n 2 --dist worksteal --fast

test-slow: $(STAMP) ## run the tests that take minutes: other ranks, kills, pages, every bad argument
	@$(PYTHON) -m pytest -m slow

test-gpu: $(STAMP) ## run the tests that need GPUs, and leave gpu_report/ with what they found
	@mkdir -p gpu_report
	@{ $(PYTHON) tools/doctor.py; nvidia-smi; } >gpu_report/machine.txt 2>&1 || true
	@$(PYTHON) -m pytest tests/gpu -rs --junitxml=gpu_report/tests.xml
	@echo 'gpu_report/ holds the results'

lint: $(STAMP) ## check style, types and words, and that imports go downwards only
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/lint-imports --cache-dir .ruff_cache/imports
	@$(VENV)/bin/mypy --cache-dir .ruff_cache/mypy
	@$(PYTHON) tests/words.py

doctor: $(STAMP) ## check this installation, line by line
	@$(PYTHON) tools/doctor.py

docs: $(STAMP) ## build the pages and the API reference into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo 'site/index.html'
