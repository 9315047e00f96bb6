"""Nodes as far as machines depend on them."""
