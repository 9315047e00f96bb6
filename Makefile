# podvisor: one word each. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := bash

-include dev/dev.mk
-include dev/guest/guest.mk

.PHONY: help generate

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## ?/  \1\t/' | sort

generate: ## generate contracts, CRDs and tables
	@dev/generate-proto
