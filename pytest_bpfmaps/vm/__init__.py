"""Runs kernels in virtual machines: the catalogue, guests, and the connection between guest and pytest."""
