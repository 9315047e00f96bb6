"""Certificates as data, and TLS contexts that renew them."""
