"""Manifests for the tests of admission: good ones with much in them, and what makes them bad."""
