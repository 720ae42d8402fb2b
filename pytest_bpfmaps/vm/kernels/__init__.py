"""The kernels that guests boot: the catalogue, and the sources that kernels come from."""
