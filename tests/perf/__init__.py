"""Measurements on the development cluster: figures with their spread, never pass or fail."""
