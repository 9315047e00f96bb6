"""DHCPv4 for the guest: one lease per interface, without an end."""
