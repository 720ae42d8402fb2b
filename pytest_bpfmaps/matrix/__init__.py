"""Which test runs on which kernel, and how pytest-xdist is led to do it."""

HOST = "host"
"""The name of the kernel that runs here."""
