"""virt-handler: the node agent. Wires launcher pods and drives their domains."""
