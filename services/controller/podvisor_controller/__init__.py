"""virt-controller: turns VirtualMachines into launcher pods, and serves the webhooks."""
