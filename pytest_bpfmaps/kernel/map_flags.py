"""Flags of a map's commands, as <linux/bpf.h> numbers them."""

from __future__ import annotations

BPF_ANY = 0
"""Update: create the element, or replace it."""
BPF_NOEXIST = 1
"""Update: only create; `MapError` with `EEXIST` if the key exists."""
BPF_EXIST = 2
"""Update: only replace; `MapKeyError` if the key does not exist."""
BPF_F_LOCK = 4
"""Lookup and update: take the ``struct bpf_spin_lock`` of the value (Linux 5.1)."""

BPF_F_CPU = 8
"""Lookup and update of a per-CPU map: one CPU's value; ``cpu << 32 | BPF_F_CPU`` (Linux 6.19)."""
BPF_F_ALL_CPUS = 16
"""Update of a per-CPU map: the same value for all CPUs (Linux 6.19)."""
