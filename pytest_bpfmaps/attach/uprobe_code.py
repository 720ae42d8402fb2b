"""Finds out whether the kernel can put a uprobe on an instruction, and explains that it can't.

The kernel executes the instruction under a uprobe at another place. It can't do that with each one. Source:
``uprobe_init_insn`` in arch/x86/kernel/uprobes.c.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
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


def find_unprobed(offsets: list[int], link: Callable[[list[int]], int]) -> int:
    """Returns the first of some offsets in a file on which the kernel puts no uprobe.

    `link` returns the descriptor of a link to some of them, and raises OSError if one is refused.
    """
    while len(offsets) > 1:
        half = offsets[: len(offsets) // 2]
        try:
            os.close(link(half))
        except OSError:
            offsets = half
        else:
            offsets = offsets[len(half) :]
    return offsets[0]


def explain_unprobed(file: Path, offset: int, of_several: str = "") -> Explanation:
    """Explains that the kernel probes no such instruction; `offset` is its place in the file.

    If it is the beginning of one of several functions, `of_several` is the name of that function.
    """
    with open(file, "rb") as opened:
        opened.seek(offset)
        code = opened.read(_LONGEST).hex(" ")
    try:
        address = elf_functions(file).address(offset)
    except (ElfError, OSError):
        address = None
    show = f"objdump -d --start-address={offset if address is None else address:#x} {file} | head -12"
    where = f", where {of_several!r} begins" if of_several else ""
    others = f"leave out {of_several!r}: functions=[…]; or " if of_several else ""
    return Explanation(
        f"the kernel puts no uprobe on the instruction at offset {offset:#x} of {file}{where} "
        f"(its code: {code})",
        f"{others}attach behind it, attach(…, offset=N), where N is its length in bytes ('{show}' shows it); "
        "or attach to a function that calls this one",
    )
