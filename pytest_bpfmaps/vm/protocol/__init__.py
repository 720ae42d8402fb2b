"""The protocol between a guest and its gateway."""
