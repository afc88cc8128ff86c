PYTHON ?= python3
SECONDS_EACH ?= 3600
OUT ?= runs/gpu

.PHONY: help test test-slow test-lowest lint types docs bench bench-speed bench-gpu gpu cifar10-gpu clean

help:  ## this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

test:  ## the default suite
	$(PYTHON) -m pytest

test-slow:  ## the whole suite with learning tests and other long ones
	$(PYTHON) -m pytest --runslow

test-lowest:  ## contract, resume and CLI tests on the lowest supported Lightning, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install -q -e '.[test]' 'pytorch-lightning==2.4.*' 'lightning==2.4.*'
	.venv-lowest/bin/python -m pytest tests/test_contract.py tests/test_resume.py tests/test_distributed.py tests/test_cli.py \
		tests/test_step.py tests/test_graphs.py tests/test_graph_places.py tests/test_engine_parts.py tests/test_host_waits.py \
		tests/test_faults_training.py

lint:  ## ruff
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:  ## mypy, on an installed copy (an editable one hides datamodules and callbacks from it)
	$(PYTHON) -m pip install -q --no-deps --upgrade --target build/types .
	cd / && MYPYPATH=$(CURDIR)/build/types $(PYTHON) -m mypy --config-file $(CURDIR)/setup.cfg -p lightning_gans

docs:  ## the documentation site in build/site, every link checked; pip install -e '.[docs]' first
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --config-file website/mkdocs.yml

bench:  ## speed against a plain loop (docs/results/overhead.md)
	$(PYTHON) -m benchmarks.overhead

bench-speed:  ## the exact rewrites against plain autograd (docs/results/speed.md)
	$(PYTHON) -m benchmarks.speed

bench-gpu:  ## CIFAR ResNet of width 128 on a GPU, TF32, against the plain loop; and the tests that need a GPU
	$(PYTHON) -m benchmarks.speed --device cuda --case cifar128
	$(PYTHON) -m pytest tests/test_graphs.py

gpu:  ## at most nine minutes on a GPU: exactness, speed, training; DATA=<folder of CIFAR-10, or a part> OUT=runs/gpu
	$(PYTHON) -m benchmarks.gpu $(if $(DATA),--data $(DATA)) --out $(OUT)

cifar10-gpu:  ## its training in full: every CIFAR-10 recipe for an hour; again to go on
	for r in dcgan wgan_gp ct_gan sn_gan wgan_alp srn_gan prc_gan; do \
		if [ -e runs/cifar10-$$r/checkpoints/last.ckpt ]; then from="--ckpt_path runs/cifar10-$$r"; else \
			from="--config configs/cifar10/$$r.yaml --name cifar10-$$r --fast=true --trainer.precision=bf16-mixed \
			--trainer.callbacks.extractor=resnet --checkpoint.monitor=metrics/fid/resnet --checkpoint.every_n_train_steps=1000"; fi; \
		timeout $(SECONDS_EACH) $(PYTHON) train.py fit $$from || [ $$? -eq 124 ] || exit 1; \
	done

clean:  ## remove build products
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
