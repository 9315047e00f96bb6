"""Thin wrappers around Linux interfaces: inotify, netlink, namespaces, path walks. No policy."""
