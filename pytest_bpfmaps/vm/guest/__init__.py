"""Runs inside a guest, before pytest and beside it."""
