"""VirtualMachineInstanceReplicaSets: how many instances there are, and what is said of them."""
