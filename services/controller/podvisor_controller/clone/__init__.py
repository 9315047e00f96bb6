"""Makes machines that are like others."""
