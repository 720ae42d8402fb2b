"""The kernels that guests boot: the catalogue, and where they come from."""
