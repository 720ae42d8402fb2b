"""Starting a guest: from a saved state, or through virtme-ng."""
