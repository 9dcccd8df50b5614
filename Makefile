SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# How long each fuzz target runs, and which packages `make bench` measures.
FUZZTIME ?= 10s
BENCH ?= ./webhook/...

##@ Try it

.PHONY: demo
demo: build kube bin/dev/dev ## Show what an API key does, on a Kubernetes API of its own, in a minute.
	bin/dev/dev demo

.PHONY: run
run: build kube bin/dev/dev ## Run it all until Ctrl-C, and say how to try it. RESET=1 forgets the data of the last run.
	bin/dev/dev run $(if $(RESET),--reset)

##@ Build

.PHONY: build
build: check-go ## Build bin/apikey-operator.
	go build -o bin/apikey-operator ./cmd/apikey-operator

.PHONY: kube
kube: ## Build the embedded control plane in bin/kube, unless KUBEBUILDER_ASSETS names a directory of binaries. The first time takes about 10 minutes.

.PHONY: clean
clean: ## Remove everything that was built, and the data of `make run`.
	rm -rf bin dist

##@ Change it

.PHONY: generate
generate: bin/tools/controller-gen ## Generate the Go code of the API types.
	bin/tools/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: bin/tools/controller-gen ## Generate the CustomResourceDefinition from the API types.
	bin/tools/controller-gen crd paths=./api/... output:crd:dir=config/crd

.PHONY: docs
docs: bin/tools/crd-ref-docs ## Generate the API reference from the API types.
	bin/tools/crd-ref-docs --log-level=WARN --source-path=api --config=hack/crd-ref-docs.yaml --renderer=markdown --output-path=docs/api-reference.md

.PHONY: fmt
fmt: bin/tools/golangci-lint ## Format the code.
	bin/tools/golangci-lint fmt

##@ Check it

.PHONY: verify
verify: generate manifests docs ## Fail when something generated, or a go.mod, is not what its sources say.
	hack/verify

.PHONY: vet
vet: check-go ## Run go vet.
	go vet ./...

.PHONY: lint
lint: bin/tools/golangci-lint ## Run the linters; they hold the import rules of the design too.
	bin/tools/golangci-lint run

.PHONY: test
test: build kube check-go ## Run all tests, with the race detector, against a real Kubernetes API.
	go test -race -timeout=20m -parallel=8 ./... # most tests wait more than they work

.PHONY: test-gateways
test-gateways: kube bin/gateways/caddy check-go ## Run the configurations of docs/gateways with the real gateways, which it downloads.
	hack/debian nginx apache2-bin libapache2-mod-oauth2
	go test -race -count=1 -timeout=10m -tags=gateways ./test/gateways # count: what it runs is not among what Go knows of a test

.PHONY: fuzz
fuzz: check-go ## Fuzz each target for FUZZTIME (10s).
	hack/fuzz $(FUZZTIME)

.PHONY: bench
bench: check-go ## Run the benchmarks of the packages BENCH (webhook).
	go test -run='^$$' -bench=. -benchmem -timeout=60m $(BENCH)

# The rest is what the targets above need.

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET" } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

GO_REQUIRED := $(shell awk '$$1 == "go" { print $$2; exit }' go.mod)

.PHONY: check-go
check-go:
	@command -v go >/dev/null || \
	  { echo "Go is not installed. Install Go $(GO_REQUIRED) or newer: https://go.dev/doc/install" >&2; exit 1; }
	@have=$$(go env GOVERSION); printf '%s\n' $(GO_REQUIRED) $${have#go} | sort -C -V || \
	  { echo "$$have is too old. Install Go $(GO_REQUIRED) or newer: https://go.dev/doc/install" >&2; exit 1; }

ifdef KUBEBUILDER_ASSETS
override export KUBEBUILDER_ASSETS := $(abspath $(KUBEBUILDER_ASSETS))
kube:
	@echo "The control plane's binaries are those in KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS)."
else
export KUBEBUILDER_ASSETS := $(CURDIR)/bin/kube
kube: bin/kube/kube
endif

KUBE_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2; exit }' hack/kube/go.mod)

bin/kube/kube: hack/build hack/kube/main.go hack/kube/go.mod hack/kube/go.sum | check-go
	hack/build hack/kube . $@ -trimpath -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)"
	for name in etcd kube-apiserver kube-controller-manager kubectl; do ln -sf kube bin/kube/$$name; done

bin/gateways/caddy: hack/build hack/gateways/go.mod hack/gateways/go.sum | check-go
	hack/build hack/gateways github.com/caddyserver/caddy/v2/cmd/caddy $@

.PHONY: bin/dev/dev
bin/dev/dev: check-go
	go build -o $@ ./hack/dev

bin/tools/controller-gen: package := sigs.k8s.io/controller-tools/cmd/controller-gen
bin/tools/crd-ref-docs: package := github.com/elastic/crd-ref-docs
bin/tools/golangci-lint: package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/tools/%: hack/build hack/tools/go.mod hack/tools/go.sum | check-go
	hack/build hack/tools $(package) $@
