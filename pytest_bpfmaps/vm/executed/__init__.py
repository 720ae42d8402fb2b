"""Tells which machine code of an emulated guest ran, and the C lines that it came from."""
