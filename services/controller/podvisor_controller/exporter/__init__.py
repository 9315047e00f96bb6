"""The exporter: a small web server in a pod of its own that hands out the content of claims. It knows no Kubernetes API."""
