"""Runs QEMU as a process: its features, its monitor, and whether KVM works."""
