"""virt-launcher: runs one guest under libvirt inside its pod. Knows no Kubernetes."""
