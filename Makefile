# Short recipes; the work is in Python. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CODE := operator sandbox-image inference/fake inference/contract tests tools benchmarks examples/demo.py
export PYTHONPATH := operator:sandbox-image:inference/fake
# Not $(MAKE) itself in the recipes: make -n would then run them.
SELF = $(MAKE)

## Everyday

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: venv
venv: $(READY) ## .venv with the locked tools
$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name it by PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: demo
demo: ## a cluster, the operator, and a task that fixes a bug (MODEL_URL= MODEL= MODEL_KEY_FILE=)
	@$(PYTHON) -m examples.demo $(if $(MODEL_URL),--model-url '$(MODEL_URL)') $(if $(MODEL),--model '$(MODEL)') $(if $(MODEL_KEY_FILE),--key-file '$(MODEL_KEY_FILE)')

.PHONY: test
test: static ## everything: check, then the tests on a real cluster; what a build server runs
	@$(PYTHON) -m tools.with_cluster $(SELF) unit images load test-cluster

.PHONY: check
check: static unit ## all that needs no cluster: lint, types, layers, generated files, tests

## One by one

.PHONY: fmt
fmt: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lint
lint: $(READY) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## mypy --strict
	$(BIN)/mypy $(CODE)

.PHONY: layers
layers: $(READY) ## who may import whom
	$(BIN)/lint-imports

.PHONY: drift
drift: $(READY) ## are the generated files those that the types give?
	$(BIN)/python -m ratchet.api.generate --check

.PHONY: static
static: lint types layers drift

.PHONY: unit
unit: $(READY) ## tests that need no cluster
	$(BIN)/pytest -q -n 2 -m 'not cluster'

# Whole files, in their order: the longest have few tests, and xdist would leave them for last.
.PHONY: test-cluster
test-cluster: $(READY) ## tests on the cluster that is up, with the images that are loaded
	RATCHET_NEED_CLUSTER=1 $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m cluster tests

.PHONY: test-network
test-network: $(READY) ## tests that need a network which enforces policies, on a cluster of their own
	@RATCHET_CLUSTER=network RATCHET_NETWORK=cilium $(PYTHON) -m tools.with_cluster $(SELF) images load test-network-only
.PHONY: test-network-only
test-network-only:
	RATCHET_NEED_CLUSTER=1 RATCHET_NEED_ENFORCER=1 $(BIN)/pytest -q -m cluster tests/e2e/network tests/e2e/network_verdict

.PHONY: contract
contract: $(READY) ## what clients may rely on, as tests of the fake SGLang (MODEL_URL=http://HOST:30000/v1: of a real server)
	$(BIN)/pytest -q inference/contract $(if $(MODEL_URL),--model-url='$(MODEL_URL)')

.PHONY: bench
bench: $(READY) ## time and writes per turn, on the cluster; writes build/bench.json
	@$(PYTHON) -m tools.with_cluster $(SELF) images load bench-only
.PHONY: bench-only
bench-only:
	$(BIN)/python -m benchmarks

.PHONY: prove
prove: $(READY) ## kill everything everywhere, count effects; 45 min (RUNS=20000 SEED=1 LONG=1 WRITE_DOCS=1)
	@$(PYTHON) -m tools.with_cluster $(SELF) images load prove-only
.PHONY: prove-only
prove-only:
	$(BIN)/python -m tests.proof $(if $(RUNS),--runs $(RUNS)) $(if $(SEED),--seed $(SEED)) $(if $(LONG),--long) $(if $(WRITE_DOCS),--write-docs)

.PHONY: prove-mutants
prove-mutants: $(READY) ## put known faults in: does the proof find each of them?
	$(BIN)/python -m tests.proof.mutants

.PHONY: attack
attack: $(READY) ## what a hostile model may try, under runc and gVisor, on a cluster of its own (WRITE_DOCS=1)
	@RATCHET_CLUSTER=attack RATCHET_NETWORK=cilium $(PYTHON) -m tools.with_cluster $(SELF) images load attack-only
.PHONY: attack-only
attack-only:
	$(BIN)/python -m tests.attack $(if $(RUNTIMES),--runtimes $(RUNTIMES)) $(if $(WRITE_DOCS),--write-docs)

.PHONY: presets
presets: $(READY) ## the chart's presets: golden files, and a dry run on the cluster's API server
	@$(PYTHON) -m tools.with_cluster $(SELF) presets-only
.PHONY: presets-only
presets-only:
	@$(BIN)/python -m tools.presets

.PHONY: generate
generate: $(READY) ## CRDs, their chart and docs/api.md, out of ratchet.api
	$(BIN)/python -m ratchet.api.generate

.PHONY: lock
lock: $(READY) ## requirements.txt and requirements-dev.txt, out of pyproject.toml
	$(BIN)/pip-compile -q --allow-unsafe --generate-hashes --strip-extras --no-emit-find-links --no-emit-index-url -o requirements.txt pyproject.toml
	$(BIN)/pip-compile -q --allow-unsafe --generate-hashes --strip-extras --no-emit-find-links --no-emit-index-url --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml

## Cluster and images

.PHONY: cluster-up
cluster-up: ## a real Kubernetes cluster for this checkout (NETWORK=cilium: one that enforces policies)
	@$(PYTHON) -m tests.cluster up $(if $(NETWORK),--network '$(NETWORK)')

.PHONY: cluster-down
cluster-down: ## end it; nothing of it stays
	@$(PYTHON) -m tests.cluster down

.PHONY: cluster-status
cluster-status: ## its parts
	@$(PYTHON) -m tests.cluster status

.PHONY: images
images: ## build the images that have changed
	@$(PYTHON) -m tools.images build

.PHONY: load
load: ## bring the images into the cluster
	@$(PYTHON) -m tools.images load

.PHONY: push
push: images ## push the images (REGISTRY=registry.example.com/ratchet)
	@$(PYTHON) -m tools.images push --registry '$(REGISTRY)'

.PHONY: install
install: ## both charts, into the cluster
	@$(PYTHON) -m tools.install

.PHONY: uninstall
uninstall: ## remove the operator; tasks and their histories stay
	@$(PYTHON) -m tools.install --uninstall
