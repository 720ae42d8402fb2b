"""QEMU as a process: its features, its monitor, its acceleration."""
