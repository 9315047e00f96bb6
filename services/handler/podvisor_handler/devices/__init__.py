"""Devices that this node offers to launcher pods."""
