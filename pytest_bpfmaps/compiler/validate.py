"""Checks an object file before libbpf reads it."""

from __future__ import annotations

from pytest_bpfmaps.btf.validate import check_soundness
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import LoadError


def check_object(data: bytes, on: str) -> None:
    """Checks the BTF of the object `on` with the bytes `data`, which libbpf trusts. Raises `LoadError`.

    The ELF file is not checked here, because libbpf's own reader checks it.
    """
    try:
        elf = Elf(data)
        section = elf.section(".BTF")
        raw = elf.content(section) if section else b""
    except ValueError:
        return  # libbpf refuses it, too
    try:
        if raw:
            check_soundness(raw)
    except LoadError as e:
        raise LoadError("cannot open", on=on, why=f"{e.what}: {e.why}", fix=e.fix, errno=e.errno) from None
