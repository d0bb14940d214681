# Each target is complete in itself: it makes .venv when it is missing or out of date, and reuses it otherwise.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUBS := build/stubs/tensorrt
EXTRAS := dev,rtx
TORCH_CUDA ?= https://download.pytorch.org/whl/cu130
export ORT_DISABLE_TELEMETRY ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: demo test test-slow test-full test-processors test-pythons test-gpu test-cpp cpp data check schema reference site tables clean

demo: $(STAMP)
	$(BIN)/perceiver-deploy demo --output demo --force

# Minutes: every kind of test, a representative of each long list. A worker that is done takes tests from the other.
test: data
	$(BIN)/pytest -n 2 --dist worksteal -m "not full and not slow" --ignore tests/cpp

# The rest of each long list: every task, precision and engine; the blocks of README and docs; full-size engines; and
# HTML reports in Chromium, which are skipped without it.
test-slow: data
	-sh tests/fetch_package.sh build/chromium chromium
	$(BIN)/pytest -n 2 --dist worksteal -m "slow and not full" --ignore tests/cpp

# The C++ library: its own tests under sanitizers too, and its numbers and errors beside Python's.
test-cpp: data cpp
	$(BIN)/pytest -n 2 -m "not full" tests/cpp

test-full: data cpp
	$(BIN)/pytest

# Golden samples of every shipped bundle on processors without INT8 dot products: AVX2 alone and SSE4.2 alone, by masked
# CPUID or in QEMU. `make test` has the short form of it. The last command replays one bundle on aarch64 in QEMU.
test-processors: data
	$(BIN)/pytest -n 2 -rs tests/processors
	$(BIN)/perceiver-deploy export digits -o build/digits.bundle --force
	$(BIN)/perceiver-deploy convert build/digits.bundle --precision int8 --calibration digits --force
	$(BIN)/perceiver-deploy convert build/digits.bundle --precision int8-weights --force
	PYTHON=$(BIN)/python sh tests/environments/aarch64.sh build/aarch64 build/digits.bundle > /dev/null

# The wheel on the Pythons of Debian 13 and of its next release, and with the lowest versions that pyproject.toml allows.
test-pythons: data
	$(BIN)/pytest -rs -s tests/environments

# On a machine with an NVIDIA GPU: every shipped task in every runtime that is complete there, then the measurements, also
# where a test failed. In an environment of its own, because onnxruntime-gpu and onnxruntime share one import folder.
test-gpu:
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/pip install --quiet torch==2.13.0 --index-url $(TORCH_CUDA)
	.venv-gpu/bin/pip install --quiet --editable '.[export,train,media,report,rtx,cuda]' 'onnxruntime-gpu[cuda,cudnn]' \
		'tensorrt-cu13>=10.13,<11' onnxruntime-ep-nv-tensorrt-rtx-cu13 pytest
	.venv-gpu/bin/perceiver-deploy data fetch --quiet > /dev/null
	.venv-gpu/bin/python -m pytest tests/gpu -rs; failed=$$?; .venv-gpu/bin/python benchmarks/gpu.py && exit $$failed

# Builds the C++ library three times, with what it needs from Debian's packages and CMake, Ninja and g++ of the system.
cpp:
	sh cpp/fetch_dependencies.sh build/cpp/dependencies forky # its headers of onnxruntime know plugins
	cd cpp && for preset in release asan tsan; do \
		cmake --preset $$preset > /dev/null && cmake --build --preset $$preset || exit 1; \
	done

# Files that data sets are made of, into the user's cache. Where they cannot be had, the tests that need them are
# skipped; with CI set that is a failure.
data: $(STAMP)
	$(BIN)/perceiver-deploy data fetch --quiet > /dev/null || test -z "$$CI"

check: $(STAMP) $(STUBS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Types of TensorRT's Python API, apart from the environment, where the package would look like TensorRT itself and ask
# for it. Two mistakes in it, which mypy cannot read, are mended.
$(STUBS): $(STAMP)
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/stubs tensorrt-stubs==10.13.0.35.1
	sed -i -E 's/([(, ])in: /\1in_: /; s/(power: Weights = None), channel_axis/\1, *, channel_axis/' \
		build/stubs/tensorrt_bindings/tensorrt.pyi
	touch $@

# Writes the published schemas of bundle.json, benchmark.json and modalities.json, and the C++ library's table of
# runtimes; tests check that they are up to date.
schema: $(STAMP)
	$(BIN)/python -c "from perceiver_deploy.bundle.manifest import manifest_schema; print(manifest_schema(), end='')" \
		> perceiver_deploy/bundle.schema.json
	$(BIN)/python -c "from perceiver_deploy.evaluate.report.benchmark_document import report_schema; print(report_schema(), end='')" \
		> perceiver_deploy/benchmark.schema.json
	$(BIN)/python -c "from perceiver_deploy.evaluate.report.suite_document import suite_schema; print(suite_schema(), end='')" \
		> perceiver_deploy/modalities.schema.json
	$(BIN)/python cpp/make_runtimes.py

# Writes the reference of the command line; a test checks that it is up to date.
reference: $(STAMP)
	$(BIN)/python docs/make_cli_reference.py

# The documentation as a site, in build/site.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Puts the figures of benchmarks/results/ into the README; a test checks that they agree.
tables: $(STAMP)
	$(BIN)/python benchmarks/readme_tables.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
