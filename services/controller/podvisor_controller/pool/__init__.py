"""VirtualMachinePools: machines made from one template, with names in order, updated one after another."""
