"""virt-handler: the node agent. Wires launcher pods and drives their domains."""

__version__ = "0.1.0"
