"""Snapshots of machines: VirtualMachineSnapshot and VirtualMachineSnapshotContent over the snapshots of CSI."""
