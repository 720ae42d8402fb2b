"""Programs that carry their own expectations, by the rules of the kernel's tests."""
