"""Explains why an object was not opened or loaded, and what to do about it."""
