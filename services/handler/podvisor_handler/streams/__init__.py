"""Byte streams between people and guests: consoles, screens, ports."""
