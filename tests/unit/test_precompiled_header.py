"""Tests that an object is the same whether clang read ``vmlinux.h`` or the precompiled form of it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from installed import installed

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.counting import map_file
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.compiler.precompiled_header import begins_with_vmlinux
from pytest_bpfmaps.compiler.vmlinux_header import RUNNING_KERNEL
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import CompileError
from tests.unit.test_compiler import CLANGS

PROGRAM = """
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
struct {{
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, struct {key});
    __type(value, __u64);
}} counts SEC(".maps");
volatile struct {key} *last;
SEC("raw_tp/sched_switch") int BPF_PROG(on_switch, bool preempt, struct task_struct *from)
{{
    struct {key} *it = (void *)from;
    last = it;
    return BPF_CORE_READ(from, {field});
}}
char LICENSE[] SEC("license") = "GPL";
"""
FIELDS = ("mm, map_count", "real_parent, tgid", "signal, nr_threads", "cred, uid.val")
KEYS = ("sock", "sk_buff", "bpf_prog", "in6_addr")

pytestmark = pytest.mark.skipif(not os.path.exists(RUNNING_KERNEL), reason="this kernel has no BTF")


def source(key: str = "xdp_md", field: str = "pid", before: str = "") -> str:
    return before + '#include "vmlinux.h"' + PROGRAM.format(key=key, field=field)


def numbered(text: str, number: int) -> str:
    """Returns another text of the same program."""
    return f"{text}// {number}\n"


class LoggingClang:
    """A clang that writes each of its command lines into a file."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        self.wrapper = folder / f"logging-{name}"
        self.write("")

    def write(self, more: str) -> None:
        """Has it add `more` to its arguments."""
        self.wrapper.write_text(f'#!/bin/sh\necho "$@" >>{self.log}\nexec {self.name} "$@" {more}\n')
        self.wrapper.chmod(0o755)

    def runs(self) -> list[str]:
        """Returns the command lines since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.write_text("")
        return [line for line in lines if "--version" not in line]

    def was_quick(self) -> bool:
        """Returns whether the last run used the precompiled header."""
        return "-include-pch" in self.runs()[-1]


@pytest.fixture
def clang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoggingClang:
    """The newest clang, with a new cache."""
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return LoggingClang(CLANGS[-1], tmp_path)


@pytest.fixture(scope="module")
def warm_clangs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoggingClang]:
    """Each clang, by name, with a cache that has the precompiled header."""
    folder = tmp_path_factory.mktemp("warm")
    found = {name: LoggingClang(name, folder) for name in CLANGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BPFMAPS_CACHE", str(folder / "cache"))
        for one in found.values():
            for number in range(2):
                compile_with(one, CompileRequest(code=numbered(source(), number)))
            assert one.was_quick()
    return found


@pytest.fixture
def warm(warm_clangs: dict[str, LoggingClang], monkeypatch: pytest.MonkeyPatch) -> LoggingClang:
    """The newest clang, with the precompiled header."""
    newest = warm_clangs[CLANGS[-1]]
    monkeypatch.setenv("BPFMAPS_CACHE", str(newest.log.parent / "cache"))
    newest.runs()
    return newest


def compile_with(clang: LoggingClang, request: CompileRequest) -> Path:
    return LocalCompiler(str(clang.wrapper)).compile(request)


def types_of(made: Path) -> tuple[list[str], list[str]]:
    """Returns the types of an object as bpftool shows them, without their numbers and their order."""
    bpftool = installed("bpftool")
    known = subprocess.run([bpftool, "version"], capture_output=True, text=True, check=False)
    if known.returncode:
        pytest.skip(f"bpftool is for another kernel here: {known.stderr.strip()}")
    command = [bpftool, "btf", "dump", "file", str(made), "format"]
    texts = [subprocess.check_output([*command, kind], text=True) for kind in ("c", "raw")]
    plain = re.sub(r"^\[\d+\]|\w*type_id=\d+", "", texts[1], flags=re.MULTILINE)
    return sorted(texts[0].splitlines()), sorted(plain.splitlines())


def sections_of(made: Path) -> dict[str, bytes]:
    elf = Elf(made.read_bytes())
    return {s.name: elf.content(s) for s in elf.sections if s.name not in (".BTF", ".rel.BTF")}


def compile_both(clang: LoggingClang, text: str, *, counting: bool = False) -> tuple[Path, Path]:
    """Compiles with the precompiled header, and with an option that has clang read the text of it."""
    plain = compile_with(clang, CompileRequest(code=text, counting=counting, cflags=("-DNOTHING",)))
    quick = compile_with(clang, CompileRequest(code=text, counting=counting))
    return quick, plain


def check_same(quick: Path, plain: Path) -> None:
    found, expected = sections_of(quick), sections_of(plain)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert types_of(quick) == types_of(plain)


@pytest.mark.parametrize("name", CLANGS)
class TestWithEachClang:
    @pytest.fixture
    def each(self, warm: LoggingClang, warm_clangs: dict[str, LoggingClang], name: str) -> LoggingClang:
        """Each clang, with the precompiled header."""
        warm_clangs[name].runs()
        return warm_clangs[name]

    def test_it_is_made_at_the_second_use(self, clang: LoggingClang, name: str, tmp_path: Path) -> None:
        clang = LoggingClang(name, tmp_path)
        for number in range(3):
            compile_with(clang, CompileRequest(code=numbered(source(), number)))
        assert [("-x c-header" in run, "-include-pch" in run) for run in clang.runs()] == [
            (False, False),  # without vmlinux.h
            (False, False),  # with it
            (True, False),
            (False, True),
            (False, True),
        ]

    def test_an_object_is_the_same(self, each: LoggingClang) -> None:
        for key, field in zip(KEYS, FIELDS, strict=True):
            quick, plain = compile_both(each, source(key, field))
            assert each.was_quick()
            check_same(quick, plain)

    def test_an_object_that_counts_is_the_same(self, each: LoggingClang) -> None:
        for number in range(2):
            quick, plain = compile_both(each, numbered(source(), number), counting=True)
        assert any("-include-pch" in run for run in each.runs())
        check_same(quick, plain)
        assert sections_of(map_file(quick)) == sections_of(map_file(plain))

    def test_an_error_is_the_same(
        self, each: LoggingClang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = CompileRequest(code=source().replace("return", "return nothing +"))
        with pytest.raises(CompileError) as quick:
            compile_with(each, wrong)
        monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
        with pytest.raises(CompileError) as plain:
            compile_with(each, wrong)
        assert str(quick.value) == str(plain.value)
        assert ["-include-pch" in run for run in each.runs()] == [True, False, False, False, False]


def test_a_header_of_the_project_is_used(warm: LoggingClang, tmp_path: Path) -> None:
    request = CompileRequest(code=numbered(source(), 5), include=(str(tmp_path),))
    compile_with(warm, request)
    assert warm.was_quick()
    (tmp_path / "vmlinux.h").write_text("#error own\n")
    with pytest.raises(CompileError, match="own"):
        compile_with(warm, request)


def test_a_header_in_a_folder_that_only_clang_knows_is_used(clang: LoggingClang, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    clang.write(f"-I{own}")
    for number in range(2):
        compile_with(clang, CompileRequest(code=numbered(source(), number)))
    assert clang.was_quick()
    (own / "vmlinux.h").write_text("#error own\n")
    with pytest.raises(CompileError, match="own"):
        compile_with(clang, CompileRequest(code=numbered(source(), 2)))


@pytest.mark.parametrize("before", ["#define BPF_NO_PRESERVE_ACCESS_INDEX\n", "typedef int number;\n"])
def test_what_stands_before_it_counts(warm: LoggingClang, before: str) -> None:
    compile_with(warm, CompileRequest(code=source(before=before)))
    assert not warm.was_quick()


def test_options_of_the_user_count(warm: LoggingClang, monkeypatch: pytest.MonkeyPatch) -> None:
    code = numbered(source(), 6)
    for request in (
        CompileRequest(code=code, cflags=("-O1",)),
        CompileRequest(code=code, defines=(("BPF_NO_PRESERVE_ACCESS_INDEX", None),)),
    ):
        compile_with(warm, request)
        assert not warm.was_quick()
    monkeypatch.setenv("CPATH", "/nowhere")
    compile_with(warm, CompileRequest(code=code))
    assert not warm.was_quick()


@pytest.mark.parametrize("damage", [b"", b"CPCH", bytes(100_000)])
def test_a_damaged_one_is_made_again(
    warm: LoggingClang, damage: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    compile_with(warm, CompileRequest(code=numbered(source(), 9) + f"// {len(damage)}\n"))
    made = Path(warm.runs()[-1].partition("-include-pch ")[2].split()[0])
    size = made.stat().st_size
    made.write_bytes(damage)
    for number in (7, 8):
        compile_with(warm, CompileRequest(code=numbered(source(), number) + f"// {len(damage)}\n"))
    assert warm.was_quick()
    assert made.stat().st_size == pytest.approx(size, rel=0.01)
    assert "damaged" in capfd.readouterr().err


def test_a_warning_about_the_header_is_not_lost(clang: LoggingClang, tmp_path: Path) -> None:
    header = tmp_path / "kernel.h"
    header.write_text("#ifndef __VMLINUX_H__\n#define __VMLINUX_H__\n#warning odd\n#endif\n")
    said: list[str] = []
    compiler = LocalCompiler(str(clang.wrapper), warn=said.append)
    for number in range(3):
        text = f'#include "vmlinux.h"\nint x = {number};\n'
        compiler.compile(CompileRequest(code=text, btf=str(header)))
    assert len(said) == 3
    assert not any("-include-pch" in run for run in clang.runs())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'#include "vmlinux.h"', True),
        (b"// SPDX\n/* a\n * b */\n\n #  include <vmlinux.h>\n", True),
        (b'// a \\\n#include <stddef.h>\n#include "vmlinux.h"', True),
        (b'/* never ends #include "vmlinux.h"', False),
        (b'#pragma once\n#include "vmlinux.h"', False),
        (b'int x;\n#include "vmlinux.h"', False),
        (b'#include "other/vmlinux.h"', False),
        (b'#include_next "vmlinux.h"', False),
        (b"", False),
    ],
)
def test_a_source_that_begins_with_the_header(text: bytes, expected: bool) -> None:
    assert begins_with_vmlinux(text) is expected
