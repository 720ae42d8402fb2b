"""Finds how many bytes programs send to each buffer, where their instructions have that as a constant."""

from __future__ import annotations

import struct
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from pytest_bpfmaps.elf.editor import RELOCATION, SHF_EXECINSTR, SHT_REL, Elf, Section

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, immediate
_LOAD_WIDE, _CALL, _EXIT = 0x18, 0x85, 0x95
_MOVES = (0xB7, 0xB4)  # dst = imm, of 64 and 32 bits
_COPY = 0xBF  # dst = src
_JUMPS = (0x05, 0x06)  # BPF_JMP, BPF_JMP32
# number of the helper: (register of the map, register of the size in bytes)
_HELPERS = {
    25: (2, 5),  # bpf_perf_event_output
    111: (2, 5),  # bpf_skb_output
    121: (2, 5),  # bpf_xdp_output
    130: (1, 3),  # bpf_ringbuf_output
    131: (1, 2),  # bpf_ringbuf_reserve
}


@lru_cache(maxsize=16)
def sizes_by_map(path: Path) -> dict[str, set[int]]:
    """Returns the sizes in bytes by the map's name; an empty dict for a damaged object."""
    found: dict[str, set[int]] = defaultdict(set)
    try:
        elf = Elf(path.read_bytes())
        for table in elf.sections:
            if table.type == SHT_REL and elf.sections[table.info].flags & SHF_EXECINSTR:
                for name, size in _calls(elf, table):
                    found[name].add(size)
    except (OSError, ValueError, LookupError, struct.error):
        return {}
    return dict(found)


def _calls(elf: Elf, table: Section) -> list[tuple[str, int]]:
    """Returns (map, size) of each call in a section of programs whose map and size are known."""
    symbols = elf.symbols()
    maps = {at: symbols[info >> 32].name for at, info in RELOCATION.iter_unpack(elf.content(table))}
    code = list(_INSTRUCTION.iter_unpack(elf.content(elf.sections[table.info])))
    targets = {i + 1 + jump for i, (op, _, jump, _) in enumerate(code) if op & 7 in _JUMPS and op != _CALL}
    known: dict[int, int | str] = {}
    found = []
    for i, (op, registers, _, immediate) in enumerate(code):
        target, source = registers & 0xF, registers >> 4
        if i in targets:
            known.clear()  # a jump to here may come with other values
        if op == _CALL:
            if source == 0 and immediate in _HELPERS:
                map_name, size = (known.get(r) for r in _HELPERS[immediate])
                if isinstance(map_name, str) and isinstance(size, int):
                    found.append((map_name, size))
            for register in range(6):  # a call overwrites these registers
                known.pop(register, None)
        elif op == _LOAD_WIDE and i * _INSTRUCTION.size in maps:
            known[target] = maps[i * _INSTRUCTION.size]
        elif op in _MOVES:
            known[target] = immediate
        elif op == _COPY and source in known:
            known[target] = known[source]
        elif op & 7 in (0, 1, 4, 7):  # loads and arithmetic write their target
            known.pop(target, None)
    return found
