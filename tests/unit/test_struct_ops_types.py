"""Tests what happens to objects with struct_ops maps before libbpf reads them, without a kernel."""

import shutil
import subprocess

import pytest

from pytest_bpfmaps.elf.editor import SHT_PROGBITS, Elf
from pytest_bpfmaps.objects import struct_ops_members

SOURCE = 'int ops __attribute__((section(".struct_ops"), used)) = 1;\n'
CLANG = next(c for c in (f"clang-{n}" for n in range(14, 22)) if shutil.which(c))


@pytest.mark.parametrize("types", [None, b"", b"no types"], ids=["without", "empty", "damaged"])
def test_an_object_without_sound_types_is_left_to_libbpf(tmp_path, monkeypatch, types):
    monkeypatch.setattr(struct_ops_members, "version", lambda: (1, 4))  # newer ones need no change
    (tmp_path / "x.c").write_text(SOURCE)
    command = [CLANG, "-O2", "-target", "bpf", "-g0", "-c", tmp_path / "x.c", "-o", tmp_path / "x.o"]
    subprocess.run(command, check=True)
    data = (tmp_path / "x.o").read_bytes()
    if types is not None:
        elf = Elf(data)
        elf.add_section(".BTF", SHT_PROGBITS, types)
        data = elf.to_bytes()
    assert struct_ops_members.without_unknown_members(data) == struct_ops_members.Trimmed(data)
