"""Decides which test runs on which kernel, and has pytest-xdist run it there."""

HOST = "host"
"""The name of the kernel that runs here."""
