"""Tests a run with guests whose caches are damaged, and from which another process removes files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from caches import CACHE

from pytest_bpfmaps.vm.kernels import kernel_json

REMOVER = """
    import subprocess, sys

    def pytest_runtest_logreport(report):
        if report.when == "call" and report.nodeid.endswith("[6.1]") and not hasattr(sys, "tried"):
            sys.tried = True
            for command in (["kernels", "remove", "6.1"], ["vm", "gc", "--all"]):
                done = subprocess.run([sys.executable, "-m", "pytest_bpfmaps.cli", *command],
                                      capture_output=True, text=True)
                print(done.stdout + done.stderr, file=open("said", "a"))
"""
TESTS = """
    import os
    import pytest
    from pytest_bpfmaps.errors import CompileError

    HOSTILE = [
        ("--serialize-diagnostics", "OUT"), ("-Wp,-MD,OUT",), ("-fplugin=OUT",), ("-MF", "OUT"),
        ("-o", "OUT"), ("-save-temps=cwd",), ("-ftime-trace=OUT",), ("@OUT",), ("--config", "OUT"),
        ("-Xclang", "-dependency-file", "-Xclang", "OUT"), ("-x", "cuda"),
    ]

    @pytest.mark.parametrize("options", HOSTILE)
    def test_options(bpf, options, tmp_path):
        cflags = [word.replace("OUT", os.environ["OUT"]) for word in options]
        with pytest.raises(CompileError, match="will not compile for a guest with the option"):
            bpf.compile(code="int x;", cflags=cflags)
        with pytest.raises(CompileError, match="will not compile for a guest with the option"):
            bpf.compile(code="int x;", defines={"": None}, cflags=["-D", *cflags])

    def test_usual_options(bpf):
        cflags = ["-mcpu=v3", "-DX=1", "-Wno-unused", "-Xclang", "-disable-O0-optnone"]
        assert bpf.compile(code="int x;", cflags=cflags)

    def test_names(bpf, tmp_path):
        for name in (b"a#b.bpf.c", b"a\\xffb.bpf.c", b"a\\tb.bpf.c"):
            source = tmp_path / os.fsdecode(name)
            source.write_bytes(b"int x; // \\xff")
            assert bpf.compile(source).exists()
        (tmp_path / "a\\nb.bpf.c").write_text("int x;")
        with pytest.raises(CompileError, match="there is a newline in the path"):
            bpf.compile(tmp_path / "a\\nb.bpf.c")

    def test_devices(bpf):
        with pytest.raises(CompileError, match="it is a device or a pipe"):
            bpf.compile(code='#include "/dev/null"')
"""


def copy_of_a_kernel(kernels: Path) -> Path:
    """Copies the stored kernel 6.1. Its modules are links, because nobody here changes them."""
    tree = kernels / "6.1"
    shutil.copytree(CACHE / "kernels/6.1", tree, ignore=shutil.ignore_patterns("lib"))
    shutil.copytree(CACHE / "kernels/6.1/lib", tree / "lib", copy_function=_link)
    kernel_json.check_content(tree)  # writes digests for a kernel that an older version stored
    return tree


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a link can't lead to another file system
        shutil.copy2(source, target)


def test_a_run_mends_its_caches_and_keeps_what_it_uses(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    tree = copy_of_a_kernel(cache / "kernels")
    if (CACHE / "kvm.json").exists():
        shutil.copy(CACHE / "kvm.json", cache)
    (cache / "qemu.json").write_text('{"digest": "')
    os.truncate(tree / "vmlinux", 1 << 20)
    monkeypatch.setenv("BPFMAPS_CACHE", str(cache))
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    pytester.makeconftest(REMOVER)
    pytester.makepyfile(TESTS)
    before = set(tmp_path.iterdir())
    result = pytester.runpytest_subprocess("--bpf-kernel=6.1")
    result.assert_outcomes(passed=14)
    assert set(tmp_path.iterdir()) == before  # no option of clang wrote a file
    shown = result.stdout.str() + result.stderr.str()
    for name in ("qemu.json", "kernels/6.1/vmlinux"):
        assert shown.count(f"{cache / name} is made again: it was damaged") == 1, shown
    said = (pytester.path / "said").read_text()
    assert "bpfmaps: cannot remove kernel '6.1': a run uses it: process " in said
    assert "(a guest runs from it)" in said
    remove = [sys.executable, "-m", "pytest_bpfmaps.cli", "kernels", "remove", "6.1"]
    subprocess.run(remove, check=True)
    assert not tree.exists()
