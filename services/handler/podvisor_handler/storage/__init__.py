"""Persistent volumes of launcher pods."""
