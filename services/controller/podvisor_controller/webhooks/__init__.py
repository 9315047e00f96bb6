"""Admission and conversion, with the certificates they need."""
