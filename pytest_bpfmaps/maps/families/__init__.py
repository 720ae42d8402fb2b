"""The map types, one module for each family."""
