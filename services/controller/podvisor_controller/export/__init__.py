"""VirtualMachineExports: volumes that are served for download by a pod of their own."""
