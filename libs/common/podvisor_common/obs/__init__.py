"""Logs (light enough for a launcher) and metrics."""
