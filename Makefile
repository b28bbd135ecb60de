# make help lists what there is. Everything lives in .venv/; nothing is installed outside it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# Processes that share the tests, a file at a time.
WORKERS := 2

.PHONY: help demo test test-slow test-trt test-gpu test-arm test-tools test-peers fuzz check pipeline camvid docs docs-site licenses release-notes bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# A stamp per set of packages: reinstall only when pyproject.toml, setup.py or the C kernel changed.
$(VENV)/demo.stamp: pyproject.toml setup.py edgeseg/_mask.c edgeseg/_motion.c
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f edgeseg/*.cpython-*.so # of a build without the stable ABI, which would be loaded first
	$(BIN)/pip install -q --no-compile -e '.[openvino,compress,camera]'
	@# NNCF declares scikit-learn but never imports it: 60 MB that no demo needs.
	$(BIN)/pip uninstall -q -y scikit-learn joblib threadpoolctl narwhals
	touch $@

$(VENV)/dev.stamp: pyproject.toml setup.py edgeseg/_mask.c edgeseg/_motion.c .ci/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f edgeseg/*.cpython-*.so
	$(BIN)/pip install -q torch==2.13.0
	$(BIN)/pip install -q -c .ci/constraints.txt -e '.[openvino,onnxruntime,tflite,compress,data,transformers,search,camera,metrics,mqtt,serve,sign,cvat,tensorboard,mlflow,docs,dev]'
	touch $@ $(VENV)/demo.stamp

demo: $(VENV)/demo.stamp ## the shipped street student: calibrate, INT8, compile, check, stream, report (no torch)
	rm -rf $(DEMO)
	$(BIN)/edgeseg synth $(DEMO)/data --train 64 --val 8 --test 60 --seed 77 --clip $(DEMO)/street.mp4 --frames 150
	$(BIN)/edgeseg calibrate $(DEMO)/data --frames 64 --out $(DEMO)/calibration.json
	$(BIN)/edgeseg compile models/street/street.onnx --precision fp32 --out $(DEMO)/street-fp32
	$(BIN)/edgeseg compile models/street/street.onnx --precision int8 --calibration $(DEMO)/calibration.json --out $(DEMO)/street-int8
	$(BIN)/edgeseg verify $(DEMO)/street-int8
	$(BIN)/edgeseg eval $(DEMO)/street-fp32 --data $(DEMO)/data --json $(DEMO)/eval-fp32.json
	$(BIN)/edgeseg eval $(DEMO)/street-int8 --data $(DEMO)/data --json $(DEMO)/eval-int8.json --pictures $(DEMO)/worst
	$(BIN)/edgeseg bench $(DEMO)/street-int8 --json $(DEMO)/bench-int8.json
	$(BIN)/edgeseg run $(DEMO)/street-int8 --source $(DEMO)/street.mp4 --sink $(DEMO)/segmented.mp4 --json $(DEMO)/run.json
	$(BIN)/edgeseg report $(DEMO)/eval-fp32.json $(DEMO)/eval-int8.json $(DEMO)/bench-int8.json $(DEMO)/run.json --out $(DEMO)/report.html
	@echo "Look at $(DEMO)/segmented.mp4 and $(DEMO)/report.html"

test: $(VENV)/dev.stamp test-tools ## every test (installs what it needs; about 23 minutes on 2 cores)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --ignore=tests/training --ignore=tests/stream
	$(BIN)/pytest tests/stream # cameras and brokers in real time: one after another
	$(BIN)/pytest -n $(WORKERS) --dist loadfile tests/training

test-slow: $(VENV)/dev.stamp ## the tests that take minutes each
	$(BIN)/pytest -m slow

test-trt: $(VENV)/dev.stamp ## TensorRT without a GPU: the real parser, and our calls against four releases' bindings
	$(BIN)/pip install -q --target build/trt/rtx tensorrt-rtx==1.7.1.116
	PYTHONPATH=build/trt/rtx $(BIN)/pytest tests/trt
	$(BIN)/python tests/trt/stubs.py build/trt

test-gpu: $(VENV)/dev.stamp ## on a machine with an NVIDIA GPU: real engines, what they compute and how fast, training in half precision
	@! command -v nvidia-smi >/dev/null || $(BIN)/pip install -q tensorrt cuda-python
	$(BIN)/pytest tests/gpu -rs

test-arm: $(VENV)/dev.stamp ## the device side on emulated aarch64 (Debian, as root): kernels, the wheel, OpenVINO, the shipped bundles
	tests/arm/run.sh

test-tools: ## Debian's RTSP server, ffmpeg, sshd, mosquitto and Prometheus for the tests that need them, where this may install them (else those skip)
	@command -v ffmpeg >/dev/null && /usr/bin/python3 -c "import gi; gi.require_version('GstRtspServer', '1.0')" 2>/dev/null \
	&& test -x /usr/sbin/sshd && test -x /usr/sbin/mosquitto && command -v promtool >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	--no-install-recommends mosquitto prometheus openssh-server openssh-client ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
	gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav >/dev/null; } \
	|| echo "not installed here: tests of real RTSP cameras, brokers, Prometheus and remote benches will skip"

PEERS := $(CURDIR)/build/peers
test-peers: $(VENV)/dev.stamp ## our label files and dvc.yaml with datumaro, label-studio-sdk and dvc, each in a venv of its own (1.3 GB)
	for peer in datumaro==1.13.12 label-studio-sdk==2.1.2 dvc==3.67.1; do \
	python3 -m venv $(PEERS)/$${peer%%=*} && $(PEERS)/$${peer%%=*}/bin/pip install -q $$peer || exit; done
	EDGESEG_PEERS=$(PEERS)/datumaro/bin/python:$(PEERS)/label-studio-sdk/bin/python PATH="$$PATH:$(PEERS)/dvc/bin" \
	$(BIN)/pytest -rs tests/data/test_peer_readers.py tests/training/test_dvc.py

SEED := 1
SECONDS := 600
fuzz: $(VENV)/dev.stamp ## mutated files for every reader (SEED=1 SECONDS=600); what fails is kept in build/fuzz
	$(BIN)/python tests/fuzz/run.py --seed $(SEED) --seconds $(SECONDS)

check: $(VENV)/dev.stamp ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pipeline: $(VENV)/dev.stamp ## train and publish models/street from its recipe (about 20 minutes on 2 cores)
	$(BIN)/edgeseg pipeline models/street/recipe.toml --publish

CAMVID := runs/camvid
camvid: $(VENV)/dev.stamp ## train models/camvid from its recipes (needs ../shared; hours on 2 cores, goes on where it stopped)
	$(BIN)/edgeseg train models/camvid/first.toml --role teacher --out $(CAMVID)/first
	$(BIN)/edgeseg train models/camvid/recipe.toml --role teacher --out $(CAMVID)
	$(BIN)/edgeseg distill models/camvid/recipe.toml --teacher $(CAMVID)/teacher.pt --out $(CAMVID)
	$(BIN)/edgeseg export $(CAMVID)/distilled.pt --out $(CAMVID)/camvid.onnx
	$(BIN)/edgeseg compile $(CAMVID)/camvid.onnx -p fp16 --golden synthetic --out models/camvid/camvid-fp16
	$(BIN)/edgeseg compile $(CAMVID)/camvid.onnx -p int8 --calibration calibration/camvid.json --golden synthetic \
	--out models/camvid/camvid-int8

docs: $(VENV)/dev.stamp ## write the generated pages of docs/ again
	$(BIN)/python docs/cli.py > docs/cli.md
	$(BIN)/python docs/reference_pages.py

licenses: $(VENV)/dev.stamp ## write docs/project/licenses.md again, of what is installed here
	$(BIN)/python docs/licenses.py > docs/project/licenses.md

release-notes: $(VENV)/dev.stamp ## tag and notes of a model's release: BUNDLE=models/street/street-int8
	@$(BIN)/python docs/release_notes.py $(BUNDLE)

docs-site: $(VENV)/dev.stamp ## the documentation as a site, without a network: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(VENV)/dev.stamp ## the shipped bundles beside the peers, several runs; fills the table of benchmarks/README.md
	$(BIN)/python benchmarks/suite.py

clean: ## remove what the targets made, not .venv
	rm -rf $(DEMO) build *.egg-info .mypy_cache .ruff_cache .hypothesis
