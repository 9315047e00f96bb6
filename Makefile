# podvisor: one word each. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

-include dev/dev.mk
-include dev/guest/guest.mk

.PHONY: help setup generate baseline check test faults bench demo clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/\1\t/' | sort | expand -t 14

setup: ## fetch what building and testing need (no-op when it is there)
	@dev/bootstrap

generate: setup ## write contracts, CRDs and tables anew from their sources
	@dev/generate

baseline: setup ## accept the contracts as they are as the compatibility baseline
	@cd proto && ../.venv/bin/buf build -o baseline.binpb

check: setup ## everything that needs no cluster
	@dev/check

test: setup ## prove every layer: check, then the tests on a real cluster (brought up when needed)
	@dev/test

faults: setup ## break things on the cluster and watch what a user sees (some minutes)
	@dev/test tests/faults

bench: setup ## measure what SPECIFICATION.md promises (PARTS="start scale" for some of it), on a cluster brought up when needed
	@[ -f .dev/kubeconfig ] || $(MAKE) --no-print-directory guest up
	@.venv/bin/python -m tests.perf.bench $(PARTS)

demo: ## boot the introduction's machine on a real cluster and show its console
	@dev/demo

clean: down ## stop everything and remove what was built in this checkout
	@rm -rf .venv .dev .mypy_cache .ruff_cache .pytest_cache
