PYTHON ?= python3
TORCH ?= torch==2.13.0
# Where pip would take a CUDA build of several GB: TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_OPTIONS ?=
VENV ?= .venv
RUN = $(VENV)/bin/python
LOWEST_PYTHON ?= python3.10

.PHONY: setup demo test test-slow lint types perf bench compat compat-lowest harnesses package checkpoint ablation clean

setup: $(VENV)/.ready

# torch is pinned apart from the package's own metadata, which only has its lower bound.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet $(TORCH_OPTIONS) "$(TORCH)"
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

test: setup
	HF_HUB_OFFLINE=1 $(RUN) -m pytest

test-slow: setup
	HF_HUB_OFFLINE=1 $(RUN) -m pytest -m slow

demo: setup
	HF_HUB_OFFLINE=1 $(VENV)/bin/fgclip2 demo --output demo_output

lint: setup
	$(RUN) -m ruff check --no-cache .
	$(RUN) -m ruff format --check .

types: setup
	$(RUN) -m mypy

# The load and parity tests on the lowest and the newest supported transformers, and exported code on 4.57.6.
compat: setup
	$(RUN) scripts/compat.py

# The same with the lowest transformers, torch and Python (a download of 5 GB: that torch has no small CPU build on PyPI).
compat-lowest: setup
	$(RUN) scripts/compat.py --transformers 5.18.0 --torch 2.6.0 --python $(LOWEST_PYTHON)

# The adapters for MTEB and CLIP_benchmark beside these packages. The latter's own dependencies have no CPU build on PyPI,
# and its code fails with numpy 2.4.
harnesses: .cache/harnesses/.ready
	HF_HUB_OFFLINE=1 FGCLIP2_HARNESSES=1 .cache/harnesses/bin/python -m pytest tests/benchmarks/harnesses

.cache/harnesses/.ready: pyproject.toml
	$(PYTHON) -m venv .cache/harnesses
	.cache/harnesses/bin/python -m pip install --quiet $(TORCH_OPTIONS) "$(TORCH)"
	.cache/harnesses/bin/python -m pip install --quiet --editable ".[bench]" "numpy<2.4" "mteb~=2.26" pytest pytest-timeout
	.cache/harnesses/bin/python -m pip install --quiet --no-deps "clip-benchmark~=1.6.2"
	touch $@

# The wheel, checked, installed in a bare environment, its doctor and demo run from there.
package: setup
	$(RUN) scripts/package.py

perf: setup
	$(RUN) -m scripts.perf --output docs/performance.md

# The offline benchmark: results of the embedded checkpoint and two controls, and their tables.
bench: setup
	rm -f docs/bundled_benchmark/*.json
	$(VENV)/bin/fgclip2 bench run bundled --controls --output docs/bundled_benchmark
	$(VENV)/bin/fgclip2 bench report docs/bundled_benchmark --output docs/bundled_benchmark/table --no-plot
	$(VENV)/bin/fgclip2 bench report docs/bundled_benchmark --output docs/bundled_benchmark/table_zh --no-plot --language zh

# Trains the embedded checkpoint anew in its two stages (hours of CPU time), into .cache/scenes/export.
checkpoint: setup
	$(RUN) -m recipes.embedded_checkpoint.train
	$(RUN) -m recipes.scenes.train

# What each term of the objective is worth: 5 settings, 3 seeds, equal compute and equal steps (hours; resumable).
ablation: setup
	$(RUN) -m recipes.scenes.ablation --output recipes/scenes/ablation

clean:
	rm -rf $(VENV) .cache dist build demo_output perf_output
