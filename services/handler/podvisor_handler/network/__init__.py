"""The network between a pod and its guest."""
