"""Tests compiling: options, include folders, diagnostics."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_bpfmaps.compiler import CompileRequest, find_source
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.elf.editor import Elf
from pytest_bpfmaps.errors import CompileError

CLANGS = sorted({os.path.basename(path) for path in glob.glob("/usr/bin/clang-[0-9][0-9]")}) or ["clang"]

XDP = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
"""


@pytest.fixture(autouse=True)
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "objects"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def is_bpf(path: Path) -> bool:
    header = path.read_bytes()[:20]
    return header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == 247


@pytest.mark.parametrize("clang", CLANGS)
class TestWithEachClang:
    def test_makes_a_bpf_object_with_type_information(self, clang: str, tmp_path: Path) -> None:
        source = write(tmp_path / "xdp.bpf.c", XDP)
        made = LocalCompiler(clang).compile(CompileRequest(source=str(source)))
        assert is_bpf(made)
        assert all(name + b"\0" in made.read_bytes() for name in (b".BTF", b".BTF.ext", b"xdp", b"license"))

    def test_code_in_place_of_a_file(self, clang: str) -> None:
        code = XDP.replace("XDP_PASS", "40 + 2")
        made = LocalCompiler(clang).compile(CompileRequest(code=code, name="answer.bpf.c"))
        assert made.name == "answer.bpf.o"
        # The verifier's log shows source lines from .BTF.ext: clang must have had a file to read.
        assert b"return 40 + 2;" in made.read_bytes()

    def test_registers_of_this_machine(self, clang: str) -> None:
        code = """
            #include <linux/ptrace.h>
            #include <linux/types.h>
            #include <linux/bpf.h>
            #include <bpf/bpf_helpers.h>
            #include <bpf/bpf_tracing.h>
            SEC("kprobe") int probe(struct pt_regs *ctx) { return PT_REGS_PARM1(ctx) == 0; }
        """
        if platform.machine() != "x86_64":
            code = code.replace("struct pt_regs", "struct user_pt_regs")
        assert is_bpf(LocalCompiler(clang).compile(CompileRequest(code=code)))

    def test_a_syntax_error_shows_the_line(self, clang: str, tmp_path: Path) -> None:
        source = write(tmp_path / "bad.bpf.c", "int fine;\nint twice(int x) { return x * ; }\n")
        with pytest.raises(CompileError) as caught:
            LocalCompiler(clang).compile(CompileRequest(source=str(source)))
        error = caught.value
        assert str(error).startswith(f"cannot compile {source}: line 2: expected expression (clang ")
        assert error.details is not None
        assert f"{source}:2:31: error: expected expression" in error.details
        assert "int twice(int x) { return x * ; }" in error.details
        assert "\033[" not in error.details

    def test_an_error_names_a_source_below_the_current_folder_from_there(
        self, clang: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bpf").mkdir()
        source = write(tmp_path / "bpf/bad.bpf.c", "int x = ;\n")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CompileError, match=r"^cannot compile bpf/bad\.bpf\.c: line 1: "):
            LocalCompiler(clang).compile(CompileRequest(source=str(source)))

    def test_an_error_in_code_shows_its_own_lines_and_name(self, clang: str) -> None:
        with pytest.raises(CompileError) as caught:
            LocalCompiler(clang).compile(
                CompileRequest(code="int fine;\nint x = nope;\n", name="test_it.bpf.c")
            )
        details = str(caught.value)
        assert "cannot compile test_it.bpf.c: line 2: use of undeclared identifier 'nope'" in details
        assert "\ntest_it.bpf.c:2:9: error: use of undeclared identifier 'nope'" in details
        assert "int x = nope;" in details


def test_warnings_are_shown_also_from_the_cache(capsys: pytest.CaptureFixture[str]) -> None:
    request = CompileRequest(code="int f(void) { int unused; return 1; }", name="w.bpf.c")
    compiler = LocalCompiler()
    shown = []
    for _ in range(2):
        compiler.compile(request)
        shown.append(capsys.readouterr().err)
    assert "w.bpf.c:1:19: warning: unused variable 'unused'" in shown[0]
    assert shown[1] == shown[0]


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    write(tmp_path / "first/which.h", "#define WHICH 1\n")
    write(tmp_path / "second/which.h", "#define WHICH 2\n")
    code = '#include <which.h>\n_Static_assert(WHICH == 1, "order");\n'
    include = (str(tmp_path / "first"), str(tmp_path / "second"))
    assert is_bpf(LocalCompiler().compile(CompileRequest(code=code, include=include)))


def test_own_folder_is_searched_with_angle_brackets_too(tmp_path: Path) -> None:
    write(tmp_path / "common.h", "#define ONE 1\n")
    source = write(tmp_path / "a.bpf.c", "#include <common.h>\nint x = ONE;\n")
    assert is_bpf(LocalCompiler().compile(CompileRequest(source=str(source))))


def test_paths_with_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b$c#d:é'x"
    write(folder / "odd name.h", "#define ONE 1\n")
    source = write(folder / "odd.bpf.c", '#include "odd name.h"\nint x = ONE;\n')
    compiler = LocalCompiler()
    first = compiler.compile(CompileRequest(source=str(source)))
    write(folder / "odd name.h", "#define ONE 11\n")
    assert compiler.compile(CompileRequest(source=str(source))) != first


def test_defines_and_cflags() -> None:
    code = '_Static_assert(A == 1 && B == 7 && sizeof(C) == 4, "defines");\n'
    defines = (("A", None), ("B", "7"), ("C", '"abc"'))
    assert is_bpf(LocalCompiler().compile(CompileRequest(code=code, defines=defines)))
    with pytest.raises(CompileError, match="defines"):
        LocalCompiler().compile(CompileRequest(code=code, defines=defines, cflags=("-UB", "-DB=8")))


def test_each_combination_of_options_has_its_own_object() -> None:
    compiler = LocalCompiler()
    requests = [
        CompileRequest(code="int x = N;", defines=(("N", "1"),)),
        CompileRequest(code="int x = N;", defines=(("N", "2"),)),
        CompileRequest(code="int x = N;", defines=(("N", "1"),), cflags=("-O1",)),
        CompileRequest(code="int x = N;", defines=(("N", "1"),), name="other.bpf.c"),
        CompileRequest(code="int x = N; ", defines=(("N", "1"),)),
    ]
    assert len({compiler.compile(request) for request in requests}) == len(requests)


def test_a_relative_path_in_cflags_follows_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for folder in ("one", "two"):
        write(tmp_path / folder / "inc/n.h", f"int {folder};\n")
        monkeypatch.chdir(tmp_path / folder)
        made.append(LocalCompiler().compile(CompileRequest(code="#include <n.h>\n", cflags=("-Iinc",))))
    assert b"one" in made[0].read_bytes()
    assert b"two" in made[1].read_bytes()


def test_the_object_is_named_after_the_source(tmp_path: Path, objects: Path) -> None:
    # libbpf derives the names of the .rodata and .bss maps from this name.
    source = write(tmp_path / "process_counter.bpf.c", "int x;")
    made = LocalCompiler().compile(CompileRequest(source=str(source)))
    assert made.name == "process_counter.bpf.o"
    assert made.parent.name.startswith("process_counter-")
    assert made.parent.parent == objects


def test_nothing_is_left_behind(objects: Path) -> None:
    LocalCompiler().compile(CompileRequest(code="int x;"))
    with pytest.raises(CompileError):
        LocalCompiler().compile(CompileRequest(code="int x"))
    assert list((objects / "tmp").iterdir()) == []
    assert list(objects.rglob("*.tmp")) == []


def test_request_travels_as_json() -> None:
    request = CompileRequest(
        code='char s[] = "ä\\n";',
        name="x.bpf.c",
        include=("/a b",),
        cflags=("-O1",),
        defines=(("A", None), ("B", "")),
        btf="/boot/btf",
    )
    assert CompileRequest.from_json(request.to_json()) == request


def test_request_is_either_source_or_code() -> None:
    with pytest.raises(ValueError, match="either a source or code"):
        CompileRequest()
    with pytest.raises(ValueError, match="either a source or code"):
        CompileRequest(source="/x.bpf.c", code="int x;")
    with pytest.raises(ValueError, match="absolute"):
        CompileRequest(source="x.bpf.c")


def test_find_source_takes_the_first_folder_that_has_it(tmp_path: Path) -> None:
    second = write(tmp_path / "two/a.bpf.c", "")
    assert find_source("a.bpf.c", [tmp_path / "one", tmp_path / "two"]) == second
    first = write(tmp_path / "one/a.bpf.c", "")
    assert find_source("a.bpf.c", [tmp_path / "one", tmp_path / "two"]) == first
    assert find_source(second, [tmp_path / "one"]) == second


def test_find_source_tells_where_it_looked_and_what_is_close(tmp_path: Path) -> None:
    write(tmp_path / "bpf/process_counter.bpf.c", "")
    with pytest.raises(FileNotFoundError) as caught:
        find_source("proces_counter.bpf.c", [tmp_path / "tests", tmp_path / "bpf"])
    assert str(caught.value) == (
        "cannot find the BPF source 'proces_counter.bpf.c': no such file at "
        f"{tmp_path}/tests/proces_counter.bpf.c, {tmp_path}/bpf/proces_counter.bpf.c\n"
        "  -> did you mean 'process_counter.bpf.c'?"
    )
    assert isinstance(caught.value, CompileError)
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_an_unreadable_source(what: str, tmp_path: Path) -> None:
    source = tmp_path / "gone.bpf.c"
    if what == "folder":
        source.mkdir()
    with pytest.raises(CompileError, match=r"cannot (find|read) the BPF source .*gone\.bpf\.c"):
        LocalCompiler().compile(CompileRequest(source=str(source)))


def test_the_clang_of_this_machine_is_used_without_being_told() -> None:
    assert os.path.basename(LocalCompiler().clang.path).startswith("clang")
    assert shutil.which(LocalCompiler().clang.path)


class TestWhatPrintedProgramsTakeForGranted:
    CODE = XDP.replace("XDP_PASS", "(u8)sizeof(u64)")

    def test_short_names_are_given_with_a_warning(self) -> None:
        said: list[str] = []
        for _ in range(2):  # the second time from the cache
            made = LocalCompiler(warn=said.append).compile(CompileRequest(code=self.CODE, name="p.bpf.c"))
            assert is_bpf(made)
        assert said[0].startswith(
            "p.bpf.c:4: warning: 'u8' is the kernel's own short name, and is declared here"
        )
        assert len(set(said)) == 1

    def test_a_source_has_its_own_types(self) -> None:
        own = "typedef char u8; typedef int u64;\n"
        said: list[str] = []
        made = LocalCompiler(warn=said.append).compile(CompileRequest(code=own + self.CODE))
        assert is_bpf(made)
        assert not said

    def test_other_errors_stay(self) -> None:
        with pytest.raises(CompileError, match=r"line 5: use of undeclared identifier 'nowhere'"):
            LocalCompiler().compile(CompileRequest(code=self.CODE + "u32 x() { return nowhere; }\n"))


ATOMICS = {
    "compare-and-swap": "return __sync_val_compare_and_swap(&value, 0, 1);",
    "swap": "return __sync_lock_test_and_set(&value, 1);",
    "or": "__sync_fetch_and_or(&value, 1); return 0;",
    "fetched": "return __sync_fetch_and_add(&value, 1);",
    "added": "__sync_fetch_and_add(&value, 1); return 0;",  # every instruction set has this one
}


def instructions(made: bytes) -> bytes:
    """Returns those of an object's functions. Debian's clang 18 writes its command line beside them."""
    elf = Elf(made)
    text = elf.section(".text")
    assert text is not None
    return elf.content(text)


@pytest.mark.parametrize("clang", CLANGS)
@pytest.mark.parametrize("name", ATOMICS)
def test_newer_instructions_are_given_where_the_source_needs_them(clang: str, name: str) -> None:
    """Asks clang itself, without this package."""
    code = f"int value;\nint p(void *ctx)\n{{\n    {ATOMICS[name]}\n}}\n"
    command = [clang, "-O2", "-target", "bpf", "-x", "c", "-c", "-o", os.devnull, "-"]
    refused = subprocess.run(command, input=code.encode(), capture_output=True, check=False).returncode != 0
    said: list[str] = []
    compiler = LocalCompiler(clang, warn=said.append)
    plain = compiler.compile(CompileRequest(code=code, name="p.bpf.c")).read_bytes()
    newer = compiler.compile(CompileRequest(code=code, name="p.bpf.c", cflags=("-mcpu=v3",))).read_bytes()
    assert [line.split(" is ")[0] for line in said] == (["p.bpf.c:4: warning: '-mcpu=v3'"] if refused else [])
    assert not (refused and name == "added")
    if refused:
        assert instructions(plain) == instructions(newer)
        with pytest.raises(CompileError):
            compiler.compile(CompileRequest(code=code, name="p.bpf.c", cflags=("-mcpu=v2",)))


@pytest.mark.parametrize(
    "wrong",
    [{"cflags": ("-DX=\0",)}, {"defines": (("X", "\0"),)}, {"defines": (("X\n", "1"),)}, {"cflags": (3,)}],
)
def test_arguments_that_no_program_can_be_given(wrong: dict[str, Any]) -> None:
    """They were a ValueError or an AttributeError, or a macro in the middle of a line."""
    with pytest.raises(
        CompileError, match=r"cannot compile with .*: it (has a NUL byte or a line end|is no text)"
    ):
        CompileRequest(code="int x;", **wrong)
