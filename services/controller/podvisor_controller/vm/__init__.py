"""VirtualMachines: which instance there shall be, and what is said of it."""
