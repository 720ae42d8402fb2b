"""Kernels in virtual machines: the catalogue, the guests, and the wire between a guest and pytest."""
