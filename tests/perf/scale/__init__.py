"""The control plane alone under many machines: real API server, etcd, controller and handlers; nodes and launchers are fake."""
