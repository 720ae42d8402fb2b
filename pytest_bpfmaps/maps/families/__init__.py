"""The classes of map types, with one module for each family."""
