"""Makes events happen: network namespaces and packets, cgroups, processes."""
