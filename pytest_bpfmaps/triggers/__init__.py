"""Makes events happen in the kernel: by network namespaces and packets, cgroups, and processes."""
