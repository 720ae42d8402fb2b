"""Tells where this kernel's code is in memory, for a debugger that attaches to the guest."""

from __future__ import annotations

import struct
from typing import Any

_NOTES, _SYMBOLS = "/sys/kernel/notes", "/proc/kallsyms"
_BUILD_ID = 3  # NT_GNU_BUILD_ID: elf(5)
_MOST = 20  # programs


def addresses() -> dict[str, Any]:
    """Returns the kernel's build id, the address of ``_text``, and the names and addresses of BPF programs.

    Raises OSError where the kernel does not tell them.
    """
    text, programs = 0, []
    with open(_SYMBOLS) as file:
        for line in file:
            address, _, name, *module = line.split()
            if name == "_text":
                text = int(address, 16)
            elif module == ["[bpf]"] and name.startswith("bpf_prog_"):
                programs.append((name, int(address, 16)))
    return {"build_id": build_id(), "text": text, "programs": programs[-_MOST:]}


def build_id() -> str:
    """Returns the build id of the running kernel in hexadecimal; empty if it has none."""
    try:
        with open(_NOTES, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return ""
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("=III", data, at)
        name = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
        begin = at + 12 + (name_size + 3) // 4 * 4
        if kind == _BUILD_ID and name == b"GNU":
            return data[begin : begin + size].hex()
        at = begin + (size + 3) // 4 * 4
    return ""
