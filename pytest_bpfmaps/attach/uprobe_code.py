"""Finds out whether the kernel can put a uprobe on an instruction, and explains that it can't.

The kernel executes the instruction under a uprobe at another place. It can't do that with each one. Source:
``uprobe_init_insn`` in arch/x86/kernel/uprobes.c.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_bpfmaps.elf.functions_by_name import elf_functions
from pytest_bpfmaps.elf.reader import ElfError
from pytest_bpfmaps.errors import Explanation

_LONGEST = 15  # bytes of an instruction of x86


@contextmanager
def mapped(file: Path) -> Iterator[None]:
    """Maps a file into this process while a program is attached to it.

    The kernel looks at an instruction only when a process has mapped it. Without this, it would accept an
    instruction that it can't probe, and the program would never run.
    """
    try:
        with open(file, "rb") as opened:
            memory = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    except (OSError, ValueError):  # the attachment itself tells what is wrong with the file
        yield
        return
    with memory:
        yield


def explain_unprobed(file: Path, offset: int | None) -> Explanation:
    """Explains that the kernel probes no such instruction.

    `offset` is its place in the file, or None if the target has several places.
    """
    if offset is None:
        return Explanation(
            f"one of these functions of {file} begins with an instruction on which the kernel puts no uprobe",
            "attach to one function after the other, which names it: program.attach(binary=…, function=…)",
        )
    with open(file, "rb") as opened:
        opened.seek(offset)
        code = opened.read(_LONGEST).hex(" ")
    try:
        address = elf_functions(file).address(offset)
    except (ElfError, OSError):
        address = None
    show = f"objdump -d --start-address={offset if address is None else address:#x} {file} | head -12"
    return Explanation(
        f"the kernel puts no uprobe on the instruction at offset {offset:#x} of {file} (its code: {code})",
        f"attach behind it, attach(…, offset=N), where N is its length in bytes ('{show}' shows it); or "
        "attach to a function that calls this one",
    )
