"""Programs of an object, before and after the load, and their runs."""
