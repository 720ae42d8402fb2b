"""Attaching programs to their targets, and the links that keep them there."""
