"""Pods that hold volumes for running guests: when their process is ended."""
