"""VirtualMachineInstances: from the object to its launcher pod, and back to its status."""
