# Everything runs in .venv, which the first target makes; a second run finds it ready.
# All paths are relative, so the checkout's own path may hold spaces.
PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: demo test test-slow test-browser test-gpu lint clean

demo: .venv/installed
	$(RUN) -m cofinal.pipeline.demo

test: .venv/installed-dev
	$(RUN) -m pytest

test-slow: .venv/installed-dev
	$(RUN) -m pytest -m 'slow and not gpu'

test-gpu: .venv/installed-dev
	$(RUN) -m pytest -m gpu

test-browser: .venv/installed-dev
	$(RUN) -m pytest -m browser

lint: .venv/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CoFInAl needs Python 3.11 or newer: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python setup.cfg pyproject.toml
	$(RUN) -m pip install --editable '.[openvino,serve]'
	@touch $@

.venv/installed-dev: .venv/installed
	$(RUN) -m pip install --editable '.[dev]'
	mkdir -p .venv/checkout
	ln -sfn ../.. .venv/checkout/cofinal
	@touch $@

clean:
	rm -rf .venv demo build *.egg-info
