# `make demo` and `make test` do everything on a fresh machine; `make help` lists the rest.
# Another Python: make env PYTHON=/path/to/python3.12. Another place: make env VENV=/path/to/venv.

VENV ?= .venv
WORKERS ?= 2
export VENV PYTHON

.DEFAULT_GOAL := help
.PHONY: help env demo test parity drill lint format notebooks

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

env: ## make the environment in .venv with everything for recording, training and testing
	@launch/make_env.sh test

demo: ## generate a video from the shipped scene with the shipped weights, into outputs/demo
	@launch/make_env.sh
	$(VENV)/bin/mirage generate --out outputs/demo
	@echo "Look at outputs/demo/sheet.png and outputs/demo/video.mp4"

test: env ## run the tests
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadgroup

parity: ## compare with Diffusers and Transformers at random small sizes (needs PyTorch: 3 GB)
	@launch/make_env.sh parity
	$(VENV)/bin/python -m pytest tests/parity tests/geometry/test_camera_peers.py

drill: env ## kill, stop and damage trainings of two processes, and compare how they end (minutes)
	$(VENV)/bin/python -m tests.drill

notebooks: ## run the notebooks, a few minutes
	@launch/make_env.sh notebooks
	cd notebooks && JAX_PLATFORMS=cpu $(abspath $(VENV))/bin/jupyter execute --inplace *.ipynb

lint: env ## check style, formatting and types
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy

format: env ## repair style and formatting
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .
