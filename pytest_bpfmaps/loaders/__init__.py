"""Starts programs that load BPF programs themselves, and finds what such a process has in the kernel."""

from __future__ import annotations
