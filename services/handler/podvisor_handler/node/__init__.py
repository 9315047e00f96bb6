"""The handler's own Node object."""
