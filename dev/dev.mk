# The development cluster. NODES=2 brings up a second node; SERVICE names the one service to reload.
.PHONY: up down reload images

up: ## a real Kubernetes in containers with podvisor in it
	@dev/up $(if $(filter 2,$(NODES)),--two-nodes)
	@dev/install

down: ## take it down again, leaving nothing behind
	@dev/down

reload: ## put edited services into the running cluster
	@dev/reload $(SERVICE)

images: ## the images of the development stack
	@eval "$$(dev/engine start)" && dev/images/build
