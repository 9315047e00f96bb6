"""Disks: overlays over images, and data for cloud-init."""
