"""Tests vmlinux.h from the BTF of every available kernel, with every available clang."""

from __future__ import annotations

import glob
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_bpfmaps.btf import Btf, Kind
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import CompileError
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

CLANGS = sorted({os.path.basename(path) for path in glob.glob("/usr/bin/clang-[0-9][0-9]")}) or ["clang"]
RUNNING = Path("/sys/kernel/btf/vmlinux")
BTFS = {"host": RUNNING, **{kernel.name: kernel.btf for kernel in Catalogue() if kernel.btf}}
# C for BPF cannot have these types as the kernel has them.
INEXACT = {
    "warn_args",  # has a va_list, whose size depends on the target
    # BTF does not record that a union is packed
    "ec_response_get_next_data_v3",
    "ec_response_get_next_event_v3",
    "cros_ec_device",
}

TRACING = """\
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

SEC("fentry/do_unlinkat")
int BPF_PROG(on_unlink, int dfd, struct filename *name)
{
    struct task_struct *task = (void *)bpf_get_current_task();
    struct bpf_map_info info = { .type = BPF_MAP_TYPE_RINGBUF };
    return BPF_CORE_READ(task, real_parent, tgid) == info.type && BPF_CORE_READ(name, name) != 0;
}
"""


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


@pytest.fixture(params=BTFS)
def each_btf(request: pytest.FixtureRequest) -> Path:
    path = BTFS[request.param]
    if not path.exists():
        pytest.skip("the running kernel was built without CONFIG_DEBUG_INFO_BTF")
    return path


@pytest.fixture
def btf() -> Path:
    for path in BTFS.values():
        if path.exists():
            return path
    pytest.skip("no kernel with BTF: neither the running one nor one of 'bpfmaps kernels list'")


def compiled(code: str, btf: Path, clang: str | None = None) -> Path:
    return LocalCompiler(clang).compile(CompileRequest(code=code, name="tracing.bpf.c", btf=str(btf)))


def test_a_core_program_compiles_with_every_clang(each_btf: Path) -> None:
    for clang in CLANGS:
        made = compiled(TRACING, each_btf, clang).read_bytes()
        assert int.from_bytes(made[18:20], "little") == 247  # EM_BPF
        assert relocations(made) >= 4


def relocations(made: bytes) -> int:
    """Returns the number of CO-RE relocations in an object, from its .BTF.ext section's header."""
    start = made.index(b"\x9f\xeb\x01\x00\x20\x00\x00\x00")
    (size,) = struct.unpack_from("<I", made, start + 28)
    return max(0, size - 4) // 16  # the section has a size of 4 bytes, then each bpf_core_relo has 16


def sizes(btf: Btf, kind: Kind) -> dict[str, int]:
    """Returns name -> size in bytes of the types of that kind, without names that are not unique in C."""
    found: dict[str, set[tuple[Kind, int]]] = {}
    for each in btf:
        if each.kind in (Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64) and each.name:
            found.setdefault(each.name, set()).add((each.kind, each.size))
    unique = {name: types.pop() for name, types in found.items() if len(types) == 1}
    return {name: size for name, (its_kind, size) in unique.items() if its_kind is kind}


def test_every_struct_has_the_kernels_size(each_btf: Path) -> None:
    parsed = Btf(each_btf.read_bytes())
    checks = [
        f'_Static_assert(sizeof({keyword} {name}) == {size}, "{name}");'
        for keyword, kind in (("struct", Kind.STRUCT), ("union", Kind.UNION))
        for name, size in sizes(parsed, kind).items()
        if name not in INEXACT
    ]
    assert len(checks) > 3000
    compiled('#include "vmlinux.h"\n' + "\n".join(checks), each_btf)


def test_the_object_depends_on_the_kernel() -> None:
    kernels = [path for path in BTFS.values() if path.exists()][:2]
    assert len({compiled(TRACING, path) for path in kernels}) == len(kernels)


def test_equal_btf_is_dumped_once(btf: Path, tmp_path: Path, objects: Path) -> None:
    first = compiled(TRACING, btf)
    copy = tmp_path / "copy"
    shutil.copyfile(btf, copy)
    assert compiled(TRACING, copy) == first
    assert compiled(TRACING + "\n", copy) != first
    assert len(list((objects / "vmlinux").iterdir())) == 1


def test_a_source_without_it_needs_no_btf(tmp_path: Path, objects: Path) -> None:
    compiled("int x;", tmp_path / "absent")
    assert not (objects / "vmlinux").exists()


def test_it_is_found_through_a_header(btf: Path, tmp_path: Path) -> None:
    (tmp_path / "common.h").write_text('#include "vmlinux.h"\n')
    request = CompileRequest(
        code='#include "common.h"\nint pid(struct task_struct *t) { return t->pid; }\n',
        include=(str(tmp_path),),
        btf=str(btf),
    )
    assert LocalCompiler().compile(request).exists()


def test_the_users_own_header_wins_and_may_come_and_go(btf: Path, tmp_path: Path) -> None:
    own = tmp_path / "vmlinux.h"
    source = tmp_path / "prog.bpf.c"
    source.write_text('#include "vmlinux.h"\nu32 x;\n')
    request = CompileRequest(source=str(source), btf=str(btf))
    compiler = LocalCompiler()
    ours = compiler.compile(request)
    own.write_text("typedef short u32; /* mine */\n")
    theirs = compiler.compile(request)
    assert theirs.read_bytes() != ours.read_bytes()
    own.unlink()
    assert compiler.compile(request) == ours


def test_the_header_has_bpftools_frame(btf: Path, objects: Path) -> None:
    compiled(TRACING, btf)
    (header,) = (objects / "vmlinux").glob("*/vmlinux.h")
    text = header.read_text()
    assert text.startswith("#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n")
    assert text.endswith("#endif /* __VMLINUX_H__ */\n")
    assert text.count("#pragma clang attribute push (__attribute__((preserve_access_index))") == 1
    assert text.count("#pragma clang attribute pop") == 1
    twice = '#include "vmlinux.h"\n' + TRACING
    assert compiled(twice, btf).exists()


def test_relocations_can_be_switched_off(btf: Path) -> None:
    code = '#include "vmlinux.h"\nint pid(struct task_struct *t) { return t->pid; }\n'
    assert relocations(compiled(code, btf).read_bytes()) == 1
    assert relocations(compiled("#define BPF_NO_PRESERVE_ACCESS_INDEX\n" + code, btf).read_bytes()) == 0


def test_no_btf(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        compiled(TRACING, tmp_path / "absent")
    assert str(caught.value).startswith(f"cannot make vmlinux.h from {tmp_path}/absent: ENOENT")
    assert "bpfmaps kernels fetch" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x9f\xeb\x01\x00\x18\x00\x00\x00" + b"\xff" * 64])
def test_what_is_no_btf(content: bytes, tmp_path: Path, objects: Path) -> None:
    (tmp_path / "btf").write_bytes(content)
    with pytest.raises(CompileError, match=rf"cannot read BTF {tmp_path}/btf: E"):
        compiled(TRACING, tmp_path / "btf")
    assert not list(objects.rglob("vmlinux.h"))


def test_truncated_btf(btf: Path, tmp_path: Path, objects: Path) -> None:
    (tmp_path / "btf").write_bytes(btf.read_bytes()[:-1000])
    with pytest.raises(CompileError, match="cannot read BTF"):
        compiled(TRACING, tmp_path / "btf")
    assert not list(objects.rglob("vmlinux.h"))


def test_a_full_disk_leaves_no_half_header(btf: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    program = (
        "import sys, pathlib; from pytest_bpfmaps.compiler import CompileRequest\n"
        "from pytest_bpfmaps.compiler.local_compiler import LocalCompiler\n"
        "from pytest_bpfmaps.errors import CompileError\n"
        "try: LocalCompiler().compile(CompileRequest(code=sys.argv[1], btf=sys.argv[2]))\n"
        "except CompileError as e: print(e)\n"
        "print(list(pathlib.Path(sys.argv[3]).rglob('vmlinux.h')))\n"
    )
    mount = f'mount -t tmpfs -o mode=700,size=1m none {cache} && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this system allows no user namespaces, so no small file system can be mounted")
    command = [
        *unshare,
        "sh",
        "-c",
        mount,
        "sh",
        sys.executable,
        "-c",
        program,
        TRACING,
        str(btf),
        str(cache),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith(f"cannot write to the object cache {cache}/objects: ENOSPC")
    assert said.endswith("\n[]\n")
