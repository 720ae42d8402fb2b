"""Tests the declarations in libbpf/decl against the installed headers."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_bpfmaps.libbpf import build_declarations, ffi

DECL = Path(build_declarations.__file__).parent / "decl"
INCLUDES = """
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
"""
STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)


def compile_c(code, folder, *flags):
    compiler = shutil.which("cc") or pytest.fail("no C compiler: install gcc")
    source = folder / "check.c"
    source.write_text(code)
    done = subprocess.run(
        [compiler, "-Werror", "-o", folder / "check", source, *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "check"


def declared_structs():
    for header in ("linux_bpf.h", "perf_event.h", "bpf.h", "libbpf.h", "btf.h"):
        for name, body in STRUCT.findall((DECL / header).read_text()):
            fields = re.findall(r"(\w+)(?:\[\d+\])?;", body)
            yield name, [f for f in fields if not f.startswith("_")]


def test_the_compiled_declarations_are_up_to_date():
    assert build_declarations.TARGET.read_text() == build_declarations.render(), (
        "run: python -m pytest_bpfmaps.libbpf.build_declarations"
    )


def test_structs_have_the_headers_sizes_and_offsets(tmp_path):
    lines = []
    for name, fields in declared_structs():
        lines.append(f'printf("{name} %zu\\n", sizeof(struct {name}));')
        lines += [f'printf("{name}.{f} %zu\\n", offsetof(struct {name}, {f}));' for f in fields]
    program = compile_c(INCLUDES + "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n", tmp_path)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    theirs = dict(line.rsplit(" ", 1) for line in printed.splitlines())

    assert len(theirs) > 100
    for what, number in theirs.items():
        name, _, field = what.partition(".")
        struct = f"struct {name}"
        if field:
            assert ffi.offsetof(struct, field) == int(number), what
        else:
            # a newer header may have more fields at the end; each side knows the other's size
            assert ffi.sizeof(struct) <= int(number), what


def test_functions_have_the_headers_types(tmp_path):
    prototypes = []
    for header in ("bpf.h", "libbpf.h", "btf.h"):
        text = STRUCT.sub("", (DECL / header).read_text())
        prototypes.append(re.sub(r"^typedef [^;]*;", "", text, flags=re.MULTILINE))
    redeclared = "#define uint64_t __u64\n#define uint32_t __u32\n" + "\n".join(prototypes)
    # Our declarations have uint32_t for an enum. Releases use const differently, which changes nothing.
    # A type that really differs is a conflict, and clang reports it.
    compile_c(INCLUDES + redeclared + "int main(void) { return 0; }\n", tmp_path, "-Dconst=")
