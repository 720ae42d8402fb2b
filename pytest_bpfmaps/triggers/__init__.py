"""What makes the kernel do the thing: network namespaces and packets, cgroups, processes."""
