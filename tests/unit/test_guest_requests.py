"""Tests what a guest may ask of its host: options of clang that write or load, paths of no files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_bpfmaps.compiler import CompileRequest, guest_options
from pytest_bpfmaps.compiler.guest_options import check_options
from pytest_bpfmaps.errors import CacheError, CompileError
from pytest_bpfmaps.vm.gateway.requests import Requests

# Each of these writes, loads, or runs something with clang 14, 16 or 19. OUT is a path that the guest
# chooses.
HOSTILE = """
--serialize-diagnostics OUT | -serialize-diagnostics OUT | -Wp,-MD,OUT | -Wp,-dependency-file,OUT
-Wa,-MD,OUT | -fplugin=OUT | -fpass-plugin=OUT | -Xclang -load -Xclang OUT | -Xclang -fpass-plugin=OUT
-Xclang=-load | -o OUT | -oOUT | -MF OUT | -MFOUT | -MD | -MMD | -MJ OUT | -M | -MM | -MG | -MT OUT | -MV
-E | -S | -save-temps | -save-temps=cwd | --save-temps | -save-temps=obj | -save-stats | --save-stats=cwd
-ftime-trace | -ftime-trace=OUT | -ftime-report | -fproc-stat-report=OUT | -fstack-usage
-Xclang -dependency-file -Xclang OUT | -dependency-file OUT | -dependency-dot OUT
-module-dependency-dir OUT | -Xclang -header-include-file -Xclang OUT | -Xclang -stats-file=OUT
-Xclang -o -Xclang OUT | @OUT | -D @OUT | -I @OUT | --config OUT | --config=OUT | --config-user-dir=OUT
-specs=OUT | --driver-mode=cl | -fcrash-diagnostics-dir=OUT | -fcrash-diagnostics=all | -gen-reproducer
-gen-reproducer=always | -gen-cdb-fragment-path OUT | -gsplit-dwarf | -gsplit-dwarf=split | -dumpdir OUT
-dwo-dir OUT | -fsave-optimization-record | -foptimization-record-file=OUT | -fdiagnostics-format=sarif
-fmodules | -fmodules-cache-path=OUT | -fimplicit-modules | -fmodule-output=OUT | -fmodule-file=OUT
-fprofile-generate=OUT | -fprofile-use=OUT | -fprofile-arcs | -ftest-coverage | --coverage | -coverage
-fprofile-instr-use=OUT | -fsanitize-ignorelist=OUT | -fsanitize-blacklist=OUT | -fsanitize=address
-mllvm -info-output-file=OUT | -mllvm -time-trace-file=OUT | -mllvm --load=OUT | -mllvm=-load=OUT
-mllvm -print-module-scope | -mllvm -bpf-stack-size=1 -mllvm -stats -mllvm -info-output-file=OUT
-fno-integrated-as | -fno-integrated-cc1 | -fuse-ld=OUT | -B OUT | -BOUT | --ld-path=OUT
-no-integrated-as | -ccc-gcc-name OUT | -ccc-install-dir OUT | --gcc-toolchain=OUT | -resource-dir OUT
--ptxas-path=OUT | -target x86_64 | --target=amdgcn | --target=hexagon | --target=bpf-apple-darwin
-target nvptx64 | -x cuda | -xcuda | -x ir | -x hip | -x c-header | -x objective-c | -ObjC | -x assembler
-include-pch OUT | -include-pchOUT | -emit-ast | -emit-llvm | -emit-pch | -flto | -fembed-bitcode | -c OUT
-ivfsoverlay OUT | -working-directory OUT | -working-directory=OUT | --analyze | -Xanalyzer -o
-Xlinker OUT | -Xpreprocessor -MD | -Xassembler -MD | -Xarch_host -fplugin=OUT
-Xopenmp-target -fplugin=OUT | -extract-api | OUT | -- | "" | -W,x | -Wl,-o,OUT | -Dx -fplugin=OUT
-I x OUT | -include | -D | -Xclang | -mllvm | -verify-pch | -fapinotes | -iapinotes-modules OUT
-symbol-graph-dir OUT | --product-name=OUT | -fbuild-session-file=OUT | -fthinlto-index=OUT
-fthin-link-bitcode=OUT | -forder-file-instrumentation | -fxray-attr-list=OUT
-frandomize-layout-seed-file=OUT | -object-file-name=OUT | -cuid=OUT | -fdriver-only | -###
"""
# Makefiles of BPF projects give these.
USUAL = """
-g -O2 -Wall -Wextra -Werror -target bpf -c | -D__TARGET_ARCH_x86 -D X=1 -UFOO -U BAR
-Iinc -I inc -I../inc | -isystem /usr/include -idirafter /usr/include/x86_64-linux-gnu -iquote .
-include a.h -imacros b.h | -mcpu=v3 | -mllvm -bpf-stack-size=512 | -Xclang -target-feature -Xclang +alu32
-mlittle-endian | --target=bpf | -target bpfeb
-std=gnu11 -fno-stack-protector -fno-builtin -fno-jump-tables -fno-unwind-tables -nostdinc -x c -w
-ffreestanding
-fno-asynchronous-unwind-tables -Wno-unused-value -Wno-pointer-sign -Wno-error=frame-larger-than=
-fno-inline
-Wframe-larger-than=512 -fdebug-prefix-map=/a=/b -ffile-prefix-map=a=b -fcolor-diagnostics -O1 -O3
-Oz -g3
-gdwarf-5 -ggdb3 -fno-strict-aliasing -funroll-loops -fPIC -fno-PIC -fvisibility=hidden
-fcf-protection=none
-Wno-address-of-packed-member -Wno-compare-distinct-pointer-types
-Wno-gnu-variable-sized-type-not-at-end -pipe
-Xclang -disable-O0-optnone | --sysroot=/x | -isysroot /x
-fms-extensions -Rpass=inline -pedantic -DA=b
"""


def split(text: str) -> list[list[str]]:
    parts = [one.split() for line in text.splitlines() for one in line.split("|")]
    return [[word.strip('"') for word in words] for words in parts if words]


@pytest.mark.parametrize("options", split(HOSTILE), ids=" ".join)
def test_an_option_that_may_write_or_load_is_refused(options: list[str]) -> None:
    with pytest.raises(CompileError, match="options that write no file and load no code"):
        check_options(options)


@pytest.mark.parametrize("options", split(USUAL), ids=" ".join)
def test_options_of_real_programs_are_taken(options: list[str]) -> None:
    check_options(options)


ATOMS = """
-D -I -include -Xclang -mllvm -x -target -W -g -m -f -O c bpf -o -MF -MD --serialize-diagnostics @ =
, OUT -plugin -E -S -ftime-trace no- -save-temps -Wp -gsplit-dwarf -dependency-file -MJ +alu32 -bpf-
"""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(ATOMS.split()), min_size=1, max_size=3).map("".join), max_size=4))
def test_what_is_taken_writes_nothing_but_the_object(words: list[str]) -> None:
    try:
        check_options(words)
    except CompileError:
        return
    _compile_beside_nothing(words)


def _compile_beside_nothing(options: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("OUT", "cwd", "made", "source"):
            (folder / part).mkdir()
        (folder / "source/a.c").write_text("int f(int a) { return a; }\n")
        files = ["-MD", "-MF", "../made/d", "-MT", "x", "-c", "../source/a.c", "-o", "../made/o"]
        options = [word.replace("OUT", f"{folder}/OUT/x") for word in options]
        command = ["clang", "-g", "-O2", "-target", "bpf", "-fno-crash-diagnostics", *options, *files]
        environment = {**os.environ, "TMPDIR": f"{folder}/cwd", "HOME": f"{folder}/cwd"}
        subprocess.run(
            command, cwd=folder / "cwd", env=environment, capture_output=True, check=False, timeout=600
        )
        left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert left - {"source/a.c", "made/d", "made/o"} == set(), options


@pytest.mark.parametrize("option", [*guest_options._BY_TWO, "-Xclang"])
def test_clang_takes_the_next_word_as_a_value_too(option: str) -> None:
    """Otherwise the list would take an option for a value, and not check it."""
    _compile_beside_nothing([option, "-Wp,-MD,OUT"])


@pytest.fixture
def requests() -> Requests:
    return Requests(None, lambda: None)


def test_options_hide_in_no_other_field(requests: Requests, tmp_path: Path) -> None:
    """A macro without a name would take the next option as its name, and not check that option's value."""
    out = tmp_path / "out"
    for defines in ((("", None),), (("X", None), ("", None))):
        flags = ("-D", f"-Wp,-MD,{out}")
        request = CompileRequest(code="int x;", defines=defines, cflags=flags)
        with pytest.raises(CompileError):
            requests.answer("compile", request.to_json())
    assert not out.exists()


def test_a_guest_compiles_and_links(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    made = []
    for name in ("a", "b"):
        request = CompileRequest(
            code=f"int {name};", name=f"{name}.bpf.c", cflags=("-O1",), defines=(("X", "1"),)
        )
        path, warnings = json.loads(requests.answer("compile", request.to_json()))
        assert warnings == ""
        made.append(path)
    assert Path(requests.answer("link", json.dumps(made))).exists()
    assert len(requests.answer("digest", made[0])) == 64


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/full", "FIFO", "."])
def test_what_is_no_file_is_not_read(requests: Requests, tmp_path: Path, place: str) -> None:
    if place == "FIFO":
        os.mkfifo(tmp_path / "pipe")
        place = str(tmp_path / "pipe")
    place = os.path.abspath(place)
    assert requests.answer("digest", place) == ""
    with pytest.raises(CompileError, match="it is no file"):
        requests.answer("compile", CompileRequest(source=place).to_json())
    with pytest.raises(CompileError, match="it is no file"):
        requests.answer("compile", CompileRequest(code="int x;", btf=place).to_json())
    with pytest.raises(CompileError, match="it is no file"):
        requests.answer("link", json.dumps([place]))


def test_a_source_takes_neither_all_memory_nor_the_disk(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    for code in ('#include "/dev/zero"', "char x[1UL << 34] = {1};"):
        with pytest.raises(CompileError):
            requests.answer("compile", CompileRequest(code=code).to_json())
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*")) < 10 << 20


def test_a_cache_that_others_may_write_to_is_refused(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(CacheError):
        requests.answer("compile", CompileRequest(code="int x;").to_json())
