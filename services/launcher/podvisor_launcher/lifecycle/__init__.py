"""What the machine does from its specification to its end."""
