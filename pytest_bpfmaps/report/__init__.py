"""What a run shows: failures, skips, leaks, the table of kernels."""
