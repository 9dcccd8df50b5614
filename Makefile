SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The duration, or the number of inputs, of each fuzz target.
FUZZTIME ?= 10s

# The parts of a node, except the control plane and Debian packages.
NODE := bin/node/node bin/node/kube-node bin/images/pause.tar bin/images/coredns.tar

##@ Try it

.PHONY: demo
demo: kube build bin/dev/dev ## Show the life of an API key in a minute, with a local Kubernetes API.
	bin/dev/dev demo

.PHONY: run
run: kube build bin/dev/dev ## Run everything locally until Ctrl-C, and print commands to try. RESET=1 deletes the data of the last run.
	bin/dev/dev run $(if $(RESET),--reset)

.PHONY: node
node: check-node kube $(NODE) ## Run a Kubernetes cluster with one node and real pods until Ctrl-C. Needs Linux and root.
	bin/node/node up

##@ Build

.PHONY: build
build: check-go ## Build bin/apikey-operator and the kubectl plugin bin/kubectl-apikey.
	$(GO_BUILD) -o bin/ ./cmd/apikey-operator ./cmd/kubectl-apikey
	ln -sf ../cmd/kubectl-apikey/kubectl_complete-apikey bin/

.PHONY: kube
kube: ## Build the embedded control plane in bin/kube, which takes about 3 minutes, or use the binaries in KUBEBUILDER_ASSETS.

.PHONY: image
image: debian-packages check-go ## Build bin/images/apikey-operator.tar, the image IMAGE, without a container engine. Needs Linux and root.
	hack/image build $(or $(IMAGE),localhost/apikey-operator:dev) bin/images/apikey-operator.tar $(if $(VERSION),--build-arg VERSION=$(VERSION))

# The repository on GitHub, OWNER/NAME, that releases the project. Releases name their images and their files after it.
REPOSITORY ?= squirrel/apikey-operator

# The programs that hack/release runs.
RELEASE_TOOLS := bin/tools/helm bin/tools/kubectl bin/tools/oci bin/tools/syft

.PHONY: release
release: $(RELEASE_TOOLS) check-go ## Build a release in dist/release: VERSION=v1.2.3, the tag of the current commit. Needs Linux.
	hack/release '$(VERSION)' '$(REPOSITORY)'

.PHONY: clean
clean: ## Remove bin and dist, including the data of `make run`.
	rm -rf bin dist

##@ Install

# The configuration to install: a directory of this repository.
KUSTOMIZATION ?= config/default

# The installed kubectl, or else the kubectl of the embedded control plane.
KUBECTL ?= $(shell command -v kubectl)
ifeq ($(KUBECTL),)
override KUBECTL = $(KUBEBUILDER_ASSETS)/kubectl
build-installer uninstall: kube
endif

.PHONY: build-installer
build-installer: ## Write all manifests to dist/install.yaml, with the image IMAGE (name:tag), and the CustomResourceDefinition to dist/crds.yaml.
	hack/installer '$(KUBECTL)' $(KUSTOMIZATION) dist $(IMAGE)

.PHONY: chart
chart: bin/tools/helm ## Package the Helm chart in dist: VERSION=v1.2.3, and IMAGE=NAME:TAG as its default image.
	hack/chart bin/tools/helm dist '$(VERSION)' '$(IMAGE)'

.PHONY: install
install: build-installer ## Install the image IMAGE into the cluster of KUBECONFIG.
	@if [[ ! '$(IMAGE)' ]] && grep -q ' image: apikey-operator:latest$$' dist/install.yaml; then \
	  echo 'IMAGE is not set: make install IMAGE=registry.example.com/apikey-operator:v1.0.0' >&2; exit 1; fi
	'$(KUBECTL)' apply --server-side --filename dist/install.yaml

.PHONY: uninstall
uninstall: ## Uninstall from the cluster of KUBECONFIG, and keep the keys.
	hack/uninstall '$(KUBECTL)' $(KUSTOMIZATION)

##@ Develop

.PHONY: generate
generate: bin/tools/controller-gen ## Generate the Go code of the API types.
	bin/tools/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

# The chart has copies of these files, because Helm reads no files outside it.
CHART_FILES := charts/apikey-operator/files

.PHONY: manifests
manifests: bin/tools/controller-gen ## Generate the CustomResourceDefinition from the API types, and copy files of config to the chart.
	bin/tools/controller-gen crd paths=./api/... output:crd:dir=config/crd
	cp config/crd/keys.squirrel.dev_apikeys.yaml config/overlays/prometheus/{dashboard.json,prometheusrule.yaml} $(CHART_FILES)
	rm -f $(CHART_FILES)/policies/*
	cp config/policies/apikey-*.yaml $(CHART_FILES)/policies

.PHONY: docs
docs: bin/tools/crd-ref-docs ## Generate the API reference from the API types.
	bin/tools/crd-ref-docs --log-level=WARN --source-path=api --config=hack/crd-ref-docs.yaml --renderer=markdown --output-path=docs/api-reference.md

.PHONY: profile
profile: PROFILED := -pgo=off
profile: load-generators bin/bench/server ## Record the CPU profile of the authenticator that its image is compiled with (PGO). Takes about a minute.
	go test -count=1 -timeout=10m -tags=bench -v -run=TestProfile ./test/bench

.PHONY: fmt
fmt: bin/tools/golangci-lint ## Format the code.
	bin/tools/golangci-lint fmt

##@ Test

.PHONY: verify
verify: generate manifests docs ## Fail if a generated file or a go.mod is out of date.
	hack/verify

.PHONY: vet
vet: check-go ## Run go vet.
	go vet ./...

.PHONY: lint
lint: bin/tools/golangci-lint bin/tools/actionlint bin/tools/vale ## Run the linters. They also check the import rules, and the wording of docs, comments and messages.
	bin/tools/golangci-lint run
	bin/tools/actionlint
	bin/tools/vale test .vale
	$(call vale,.)

.PHONY: prose
prose: bin/tools/vale ## Report the wording that make lint accepts too, such as sentences of more than 30 words. PROSE=docs limits it to docs.
	$(call vale,$(or $(PROSE),.)) --minAlertLevel=warning --no-exit

.PHONY: check-commits
check-commits: ## Check the subjects of commits: "area: imperative summary", at most 72 characters.
	hack/commits

.PHONY: vulncheck
vulncheck: bin/tools/govulncheck check-go ## Fail if the program calls code with known vulnerabilities. Needs access to Go's vulnerability database.
	bin/tools/govulncheck ./...

# RACE=1 adds the race detector to the tests and to the program that they run, as .ci/run does for `make test`. It takes 1.6 times the
# processor time, and first compiles everything once more. Without it, the flags are those of `make build`, so that Go compiles shared
# packages once. GOGC: all processes of the tests collect garbage less often, which saves a tenth of their processor time. GORACE: the race
# detector waits for a second at the end of each package by default. `make lint` runs vet.
ifdef RACE
TEST_BUILD = GORACE=atexit_sleep_ms=0 go test -race
else
TEST_BUILD = CGO_ENABLED=0 GOFLAGS="$(GOFLAGS) $(BUILD_FLAGS)" go test
endif
GO_TEST = GOGC=300 $(TEST_BUILD) -vet=off -timeout=20m

# Most tests mostly wait, so more of them run at a time than there are processors.
TEST_CONCURRENCY := -p=$$((2 * $$(getconf _NPROCESSORS_ONLN))) -parallel=16

# These suites test the programs as they are built, and run again after a change of any package that a program has.
PROGRAM_SUITES := ./test/faults ./test/config ./hack/dev ./cmd/kubectl-apikey

# They start first, so that none of them runs alone at the end.
LONGEST_PACKAGES := ./controllers ./webhook/admission ./internal/keyclient ./console/...

.PHONY: test
test: kube check-go ## Test the packages with a real Kubernetes API. RACE=1 adds the race detector.
	$(GO_TEST) $(TEST_CONCURRENCY) $(LONGEST_PACKAGES) $$(go list ./... | grep -vxF "$$(go list $(PROGRAM_SUITES))")

.PHONY: test-programs
test-programs: kube build check-go ## Test the built programs: the CLI, `make run`, the installed manifests, and what happens when something fails.
	$(GO_TEST) $(TEST_CONCURRENCY) $(PROGRAM_SUITES)

# The number of keys in each state of `make test-load`.
KEYS ?= 10000

.PHONY: test-load
test-load: kube build check-go ## Test the latency of new keys while KEYS=10000 others wait in each state, and rotations under load.
	go test -count=1 -timeout=15m -tags=load -v ./test/load -args -keys=$(KEYS) # -count: the test cache ignores the program

.PHONY: test-outages
test-outages: kube check-go ## Measure the delay of revocations after many kinds of outages of the Kubernetes API. Takes about 4 minutes.
	$(GO_TEST) -count=1 -parallel=40 -tags=outages -v -run=TestRevocationsTakeEffectInTime ./test/faults # the tests mostly wait

.PHONY: test-mutants
test-mutants: check-go ## Test that the simulation finds each of many faults in the product. Takes about a minute.
	go test -count=1 -timeout=30m -parallel=2 -tags=mutants -v ./test/simulation/mutants # -parallel=2: each simulation uses all processors

.PHONY: test-gateways
test-gateways: kube bin/images/caddy check-go ## Test the configurations of docs/gateways with real gateways. Downloads them.
	hack/debian nginx apache2-bin libapache2-mod-oauth2 curl haproxy node-express nodejs python3-fastapi python3-httpx python3-uvicorn
	$(GO_TEST) -count=1 -tags=gateways ./test/gateways # -count: the test cache ignores the gateways

.PHONY: test-console
test-console: kube bin/axe/axe.min.js check-go ## Test the web console with a real browser. Downloads it.
	hack/debian chromium-headless-shell chromium-common fonts-inter fonts-dejavu-core
	$(GO_TEST) -count=1 -tags=console -bench=. -benchtime=1x ./test/console # -count: the test cache ignores the page

.PHONY: test-monitoring
test-monitoring: kube check-go ## Test the alerts and the dashboard with a real Prometheus. Downloads it.
	hack/debian prometheus
	$(GO_TEST) -count=1 -tags=monitoring ./test/monitoring # -count: the test cache ignores config

.PHONY: test-chart
test-chart: kube chart check-go ## Test the Helm chart: its values, and that it renders the same objects as kustomize.
	$(GO_TEST) -count=1 -tags=chart ./test/chart # -count: the test cache ignores the chart

.PHONY: test-overlays
test-overlays: kube bin/cert-manager/cert-manager bin/prometheus-operator/admission-webhook check-go ## Test config/overlays with the real cert-manager, and the real webhook of the Prometheus Operator.
	$(GO_TEST) -count=1 -tags=overlays ./test/overlays # -count: the test cache ignores these programs

.PHONY: test-release
test-release: kube $(RELEASE_TOOLS) bin/tools/crane check-go ## Test the files of a release, and that two clones build the same. Needs Linux.
	$(GO_TEST) -count=1 -timeout=30m -tags=release -v ./test/release # -count: the test cache ignores hack/release

.PHONY: test-gitops
test-gitops: kube build bin/flux/kustomize-controller bin/flux/crds bin/tools/helm check-go ## Test keys in Git with the real Flux, Helm and kubectl.
	$(GO_TEST) -count=1 -parallel=30 -tags=gitops ./test/gitops # -count: the test cache ignores these programs; the tests mostly wait

.PHONY: test-upgrade
test-upgrade: kube bin/tools/helm check-go ## Test the upgrade from the previous release, and the way back. Builds that release from the history of the repository.
	hack/previous-release
	$(GO_TEST) -count=1 -parallel=8 -tags=upgrade ./test/upgrade # -count: the test cache ignores the previous release; the tests mostly wait

# These tests need a newer Kubernetes: see docs/operations/versioning.md.
NEWER_KUBERNETES := ^TestFieldSelectors$$|^TestSchema_ExpiresAtOfAnEndedKeyRefusesNoStatus$$|^TestInstall_(HasNoWarningsAndNoDrift|AnotherFieldManagerCanApplyTheSameManifests)$$
NEWER_KUBERNETES := $(NEWER_KUBERNETES)|^TestReconcile_(ContinuesAfterAnUnreadableFieldIsCorrected|AnUnreadableKeyIsInactiveAfterItExpires)$$

.PHONY: test-oldest-kubernetes
test-oldest-kubernetes: kube bin/kube-oldest/kube-apiserver bin/kube-oldest/kube-controller-manager check-go ## Test the API, the policies and the controller with the oldest supported Kubernetes. The first build takes about 4 minutes.
	ln -sf '$(KUBEBUILDER_ASSETS)'/{etcd,kubectl} bin/kube-oldest
	KUBEBUILDER_ASSETS='$(CURDIR)/bin/kube-oldest' $(GO_TEST) -count=1 -parallel=8 -skip='$(NEWER_KUBERNETES)' \
	  ./api/... ./controllers ./webhook/admission ./test/config # -count: the test cache ignores the control plane

.PHONY: e2e
ifdef IMAGE
e2e: kube check-go ## Test the image in real pods on a local node, or on any cluster: KUBECONFIG=FILE IMAGE=NAME. Writes bin/e2e/report.md.
	go test -count=1 -timeout=30m -tags=e2e ./test/e2e
else
e2e: check-node kube $(NODE) bin/images/traffic.tar bin/images/caddy.tar debian-packages
	hack/image build localhost/apikey-operator:e2e bin/images/apikey-operator.tar --build-arg VERSION=v0.0.0-e2e
	hack/image build localhost/apikey-operator:e2e-upgrade bin/images/apikey-operator-upgrade.tar --build-arg VERSION=v0.0.1-e2e
	go test -count=1 -timeout=30m -tags=e2e -v -p=1 ./hack/node ./test/e2e # -p=1: one node at a time
endif

.PHONY: fuzz
fuzz: check-go ## Run each fuzz target for FUZZTIME: a duration (10s) or a number of inputs (1000x).
	hack/fuzz $(FUZZTIME)

# The number of runs of `make simulate`, the seed of the first one, and the time after which no further run starts.
SEEDS ?= 100000
FIRST ?= 1
FOR ?= 0s

.PHONY: simulate
simulate: check-go ## Simulate SEEDS=100000 random schedules of controllers, from seed FIRST=1 on, or as many as FOR=60m allows.
	go test -count=1 -timeout=0 -v -run=TestSchedules ./test/simulation -args -seeds=$(SEEDS) -first=$(FIRST) -for=$(FOR)

.PHONY: bench
bench: load-generators bin/bench/server ## Benchmark the checks of keys and write docs/benchmarks.md. Downloads load generators. Takes about 12 minutes.
	go test $(PROFILED) -count=1 -timeout=30m -tags=bench -v -run=TestDataPlane ./test/bench

.PHONY: bench-gateways
bench-gateways: load-generators bin/bench/server bin/images/caddy ## Benchmark requests through gateways that check keys and write docs/benchmarks.md. Takes about 7 minutes.
	hack/debian haproxy
	go test -count=1 -timeout=30m -tags=bench -v -run=TestGateways ./test/bench

.PHONY: bench-authorino
bench-authorino: kube load-generators bin/bench/server bin/authorino/authorino ## Benchmark checks by this project and by Authorino, and write docs/benchmarks.md. Takes about 7 minutes.
	go test -count=1 -timeout=30m -tags=bench -v -run=TestAuthorino ./test/bench

.PHONY: bench-scale
bench-scale: kube bin/bench/apikey-operator ## Benchmark 100 000 APIKeys on a local Kubernetes API and write docs/benchmarks.md. Takes about 7 minutes.
	go test -count=1 -timeout=60m -tags=bench -v -run=TestScale ./test/bench/scale

.PHONY: bench-issuing
bench-issuing: kube bin/bench/apikey-operator ## Benchmark how keys are issued, with and without validations, and write docs/benchmarks.md. Takes about 2 minutes.
	go test -count=1 -timeout=60m -tags=bench -v -run=TestIssuing ./test/bench/scale

# The targets below are prerequisites of those above.

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET" } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# An older Go downloads the toolchain of go.mod itself, unless GOTOOLCHAIN forbids it.
GO_REQUIRED := $(shell awk '$$1 == "toolchain" { sub("go", "", $$2); print $$2; exit }' go.mod)

.PHONY: check-go
check-go:
	@command -v go >/dev/null || \
	  { echo "Go is not installed. Install Go $(GO_REQUIRED) or newer: https://go.dev/doc/install" >&2; exit 1; }
	@have=$$(go env GOVERSION); printf '%s\n' $(GO_REQUIRED) $${have#go} | sort -C -V || \
	  { echo "$$have is too old. Install Go $(GO_REQUIRED) or newer: https://go.dev/doc/install" >&2; exit 1; }

ifdef KUBEBUILDER_ASSETS
# Absolute, because tests run in other directories. abspath would split a path with spaces.
override export KUBEBUILDER_ASSETS := $(shell cd '$(KUBEBUILDER_ASSETS)' 2>/dev/null && pwd || echo '$(KUBEBUILDER_ASSETS)')
kube:
	@echo "Using the control plane's binaries in KUBEBUILDER_ASSETS=$(KUBEBUILDER_ASSETS)."
else
export KUBEBUILDER_ASSETS := $(CURDIR)/bin/kube
kube: bin/kube/kube
endif

# The version of a module that the go.mod of a directory requires: $(call version_of,MODULE,DIRECTORY).
version_of = $(shell awk '$$1 == "$(1)" { print $$2; exit }' $(2)/go.mod)

KUBE_VERSION := $(call version_of,k8s.io/kubernetes,hack/kube)

KUBE_SOURCES := hack/build hack/kube/multicall/multicall.go hack/kube/go.mod hack/kube/go.sum
KUBE_LDFLAGS := -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)"

# The control plane and the programs of this module are compiled with the same flags, so that Go compiles shared packages once. The flags
# shorten the first build: no debug information, and neither inlining nor concurrent compilation in the packages of Kubernetes, of which most
# are large and seldom run. The compiler collects no garbage, unless it needs more memory than most packages do.
BUILD_ENVIRONMENT := CGO_ENABLED=0 GOGC=off GOMEMLIMIT=512MiB
BUILD_FLAGS := -gcflags=all=-dwarf=false '-gcflags=k8s.io/...=-dwarf=false -l -c=1' -gcflags=k8s.io/apimachinery/...=-dwarf=false
GO_BUILD := $(BUILD_ENVIRONMENT) go build $(BUILD_FLAGS)

bin/kube/kube: hack/kube/main.go $(wildcard hack/kube/controllermanager/*.go) $(KUBE_SOURCES) | check-go
	$(BUILD_ENVIRONMENT) hack/build hack/kube . $@ $(BUILD_FLAGS) $(KUBE_LDFLAGS)
	for name in etcd kube-apiserver kube-controller-manager kubectl; do ln -sf kube bin/kube/$$name; done

# The control plane of the oldest supported Kubernetes. etcd and kubectl are those of `make kube`.
OLDEST_VERSION := $(call version_of,k8s.io/kubernetes,hack/kube-oldest)

bin/kube-oldest/kube-%: hack/build hack/kube-oldest/go.mod hack/kube-oldest/go.sum | check-go
	$(BUILD_ENVIRONMENT) hack/build hack/kube-oldest k8s.io/kubernetes/cmd/$(@F) $@ $(BUILD_FLAGS) \
	  -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$(OLDEST_VERSION)"

bin/node/kube-node: hack/kube/node/main.go $(KUBE_SOURCES) | check-go
	$(BUILD_ENVIRONMENT) hack/build hack/kube ./node $@ $(BUILD_FLAGS) $(KUBE_LDFLAGS)
	for name in kube-controller-manager kubelet kube-proxy kube-scheduler; do ln -sf kube-node bin/node/$$name; done

.PHONY: bin/node/node
bin/node/node: check-go
	go build -o $@ ./hack/node

.PHONY: check-node
check-node: bin/node/node
	bin/node/node check

.PHONY: debian-packages
debian-packages:
	hack/debian buildah containerd containernetworking-plugins iproute2 nftables runc

bin/images/%.tar: bin/images/% hack/image | debian-packages
	hack/image wrap localhost/$*:1 $@ $<

bin/images/coredns: hack/build hack/coredns/main.go hack/coredns/go.mod hack/coredns/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/coredns . $@ -trimpath -ldflags="-s -w"

# The pause image of Kubernetes.
bin/images/pause: hack/kube/go.mod | bin/node/kube-node
	mkdir -p $(@D)
	$(CC) -static -Os -s -o $@ "$$(cd hack/kube && go list -m -f '{{.Dir}}' k8s.io/kubernetes)/build/pause/linux/pause.c"

.PHONY: bin/images/traffic
bin/images/traffic: check-go
	CGO_ENABLED=0 go build -o $@ ./test/e2e/traffic

bin/images/caddy: hack/build hack/gateways/go.mod hack/gateways/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/gateways github.com/caddyserver/caddy/v2/cmd/caddy $@ -trimpath -ldflags="-s -w"

bin/authorino/authorino: hack/build hack/authorino/go.mod hack/authorino/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/authorino github.com/kuadrant/authorino $@ -trimpath -ldflags="-s -w"

bin/flux/kustomize-controller: hack/build hack/flux/go.mod hack/flux/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/flux github.com/fluxcd/kustomize-controller $@ -trimpath -ldflags="-s -w"

bin/cert-manager/cert-manager: hack/build hack/cert-manager/main.go hack/cert-manager/go.mod hack/cert-manager/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/cert-manager . $@ -trimpath -ldflags="-s -w"

bin/prometheus-operator/admission-webhook: hack/build hack/prometheus-operator/go.mod hack/prometheus-operator/go.sum | check-go
	CGO_ENABLED=0 hack/build hack/prometheus-operator github.com/prometheus-operator/prometheus-operator/cmd/admission-webhook $@ \
	  -trimpath -ldflags="-s -w"

# The CustomResourceDefinitions of Flux.
bin/flux/crds: bin/tools/controller-gen hack/flux/go.mod
	rm -rf $@ $@.partial
	cd hack/flux && '$(CURDIR)/$<' crd paths=github.com/fluxcd/{kustomize,source}-controller/api/v1 output:crd:dir='$(CURDIR)/$@.partial'
	mv $@.partial $@

# The CPU profile that the image and the benchmarks are compiled with.
PROFILED := -pgo='$(CURDIR)/cmd/apikey-operator/authenticator.pgo'

.PHONY: bin/bench/server
bin/bench/server: check-go
	CGO_ENABLED=0 go build $(PROFILED) -o $@ ./test/bench/server

# The program, compiled as in the image, but with symbols.
.PHONY: bin/bench/apikey-operator
bin/bench/apikey-operator: check-go
	CGO_ENABLED=0 go build $(PROFILED) -o $@ ./cmd/apikey-operator

.PHONY: load-generators
load-generators:
	hack/debian wrk nghttp2-client nginx

.PHONY: bin/dev/dev
bin/dev/dev: check-go
	$(GO_BUILD) -o $@ ./hack/dev

bin/axe/axe.min.js: hack/axe
	hack/axe $@

bin/tools/controller-gen: package := sigs.k8s.io/controller-tools/cmd/controller-gen
bin/tools/crd-ref-docs: package := github.com/elastic/crd-ref-docs
bin/tools/golangci-lint: package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/tools/govulncheck: package := golang.org/x/vuln/cmd/govulncheck
bin/tools/vale: package := github.com/vale-cli/vale/v3/cmd/vale

# Vale on the files of a directory. It cannot follow the symbolic links in bin.
vale = git ls-files --cached --others --exclude-standard --deduplicate -z $(1) ':!.vale' | xargs -0 bin/tools/vale --no-global --output=line

bin/tools/helm: hack/build hack/helm/go.mod hack/helm/go.sum | check-go
	hack/build hack/helm helm.sh/helm/v4/cmd/helm $@

# One version of kubectl, so that each release renders the manifests in the same way.
bin/tools/kubectl: $(KUBE_SOURCES) | check-go
	hack/build hack/kube k8s.io/kubernetes/cmd/kubectl $@ $(KUBE_LDFLAGS)

# Not in hack/tools, where another linter requires a YAML library that actionlint does not build with.
bin/tools/actionlint: hack/build hack/actionlint/go.mod hack/actionlint/go.sum | check-go
	hack/build hack/actionlint github.com/rhysd/actionlint/cmd/actionlint $@

bin/tools/crane: hack/build hack/oci/go.mod hack/oci/go.sum | check-go
	hack/build hack/oci github.com/google/go-containerregistry/cmd/crane $@

bin/tools/oci: hack/build $(wildcard hack/oci/*.go) hack/oci/go.mod hack/oci/go.sum | check-go
	hack/build hack/oci . $@

# Syft writes its version into each SBOM.
bin/tools/syft: hack/build hack/syft/go.mod hack/syft/go.sum | check-go
	hack/build hack/syft github.com/anchore/syft/cmd/syft $@ \
	  -ldflags="-X main.version=$(call version_of,github.com/anchore/syft,hack/syft)"

bin/tools/%: hack/build hack/tools/go.mod hack/tools/go.sum | check-go
	hack/build hack/tools $(package) $@
