"""Reading and changing ELF files: objects, programs, libraries, kernels."""
