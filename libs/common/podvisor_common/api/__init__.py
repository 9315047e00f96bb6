"""The objects of the Kubernetes API that podvisor serves or reads. Imports only the standard library and msgspec."""
