"""DHCPv4 and DHCPv6 for the guest: one lease of each per interface, without an end."""
