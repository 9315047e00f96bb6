"""What the handler offers to people and tools on its node."""
