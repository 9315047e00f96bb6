"""The kubelet's device plugin API: contract and generated code."""
