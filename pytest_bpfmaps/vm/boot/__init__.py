"""Starts a guest: from a saved state, or by virtme-ng."""
