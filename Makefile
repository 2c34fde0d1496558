# Two commands do everything on a machine with Python 3.11+ and make: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help run test security bench colab lab notebooks site lint clean

help:
	@echo "make run         execute the whole course on tinyworld; notebooks and pictures go to out/"
	@echo "make test        run all tests (one file: make test ARGS=tests/test_cli.py)"
	@echo "make security    run the tests of evil folders on the oldest versions that are allowed"
	@echo "make bench       time edits beside their bare network calls and beside diffusers, as ratios"
	@echo "make colab       run notebooks 00 and 03 on the versions that Colab ships, from an empty folder; 7 GB"
	@echo "make lab         open JupyterLab on notebook 00"
	@echo "make notebooks   execute all notebooks and save them in place (some: make notebooks ARGS=notebooks/00_start_here.ipynb)"
	@echo "make site        build the site, with an edit in the browser on its front page; needs Node.js with npm"
	@echo "make lint        check style and types of package, tests and notebooks, and who imports whom"
	@echo "make clean       remove $(VENV) and out/"
	@echo "Each creates $(VENV) where there is none; PYTHON=... says from which Python."

run: $(STAMP)
	@$(BIN)/python -m blendlab.course --out out $(ARGS)

# Two processes of one thread each: two threads wait for each other as soon as anything else runs.
# Widgets and site are tested where Chromium and Node.js are; elsewhere those tests say that they skip.
test: $(TOOLS)
	@mkdir -p out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --junitxml=out/tests.xml $(ARGS)

# The oldest versions that pyproject.toml allows of what opens folders, beside the PyTorch that is installed.
FLOORS := diffusers==0.35.0 transformers==4.56.0 huggingface_hub==0.34.0 tokenizers==0.22.0
OPENING := tests/test_security.py tests/test_load.py
security: $(STAMP) out/floors/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(OPENING) $(ARGS)
	OMP_NUM_THREADS=1 PYTHONPATH=out/floors $(BIN)/python -m pytest $(OPENING) $(ARGS)

out/floors/.installed: Makefile $(STAMP)
	rm -rf out/floors
	$(BIN)/python -m pip install --quiet --no-deps --target out/floors $(FLOORS)
	touch $@

bench: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python bench/bench.py $(ARGS)

# As a reader's Colab has it: the package as a wheel, its data inside, and nothing else of the clone.
ON_COLAB := notebooks/00_start_here.ipynb notebooks/03_latent_blending.ipynb
colab: out/colab/.installed
	out/colab/bin/python -m pip install --quiet --no-deps --force-reinstall .
	rm -rf out/colab/empty && mkdir out/colab/empty
	cd out/colab/empty && ../bin/python -m blendlab.course --out . $(abspath $(ON_COLAB))

out/colab/.installed: constraints-colab.txt pyproject.toml
	rm -rf out/colab
	$(PYTHON) -m venv out/colab
	out/colab/bin/python -m pip install --quiet . nbclient nbformat ipykernel -c constraints-colab.txt
	touch $@

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb $(ARGS)

notebooks: $(STAMP)
	@$(BIN)/python -m blendlab.course --save $(ARGS)

site: $(TOOLS)
	@command -v npm > /dev/null || { echo "make site needs Node.js with npm (Debian and Ubuntu: nodejs npm)"; exit 1; }
	@$(BIN)/python site/make.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check blendlab tests bench site data/make.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy blendlab

clean:
	rm -rf "$(VENV)" out

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "blendlab needs Python 3.11 or newer and '$(PYTHON)' is none; name one: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot create environments; install its venv module (Debian and Ubuntu: python3-venv)"; exit 1; }
	@echo "Installing blendlab and what it needs into $(VENV): minutes the first time, up to 7 GB with PyTorch"
	@start=$$(date +%s); \
	{ test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && \
	$(BIN)/python -m pip install -e '.[lab,test]' -c constraints.txt && \
	touch $@ && echo "Installed in $$(( $$(date +%s) - start )) s"

# What tests, site and lecturers' packs need beside the course: 0.3 GB.
$(TOOLS): $(STAMP)
	@$(BIN)/python -m pip install --quiet -e '.[browser,lectures,site]' -c constraints.txt && touch $@
