"""virt-launcher: runs one guest under libvirt inside its pod. Knows no Kubernetes."""

__version__ = "0.1.0"
