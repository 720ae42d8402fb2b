"""What a run tells: kernels, costs, coverage."""
