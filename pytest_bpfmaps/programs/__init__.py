"""Programs of an object: opened, loaded, run."""
