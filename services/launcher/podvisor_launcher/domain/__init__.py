"""libvirt's domain: its elements, and how a specification becomes one."""
