"""Makes machines what a snapshot kept of one."""
