"""Reads and changes ELF files: objects, programs, libraries, kernels."""
