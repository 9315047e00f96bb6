"""The instances of this node: what each needs, and what is said of it."""
