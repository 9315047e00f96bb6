"""The launchers of this node: finding their sockets, following their reports."""
