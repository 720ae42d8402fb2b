"""Tests the messages of compilations that fail. Each test makes the real cause."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_running

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import BpfError, CompileError, remedy


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def failure(compiler: LocalCompiler, code: str, cflags: tuple[str, ...] = ()) -> CompileError:
    with pytest.raises(CompileError) as caught:
        compiler.compile(CompileRequest(code=code, cflags=cflags, name="prog.bpf.c"))
    return caught.value


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_no_clang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLANG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    error = failure(LocalCompiler(), "int x;")
    assert str(error).startswith(
        "cannot find clang: no clang or clang-N in $PATH\n  -> install clang 14 or later"
    )
    for system in ("apt-get install clang", "dnf install clang", "pacman -S clang", "apk add clang"):
        assert system in str(error)


@pytest.mark.parametrize("origin", ["--bpf-clang", "$CLANG"])
def test_the_clang_asked_for_is_not_there(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explicit = "clang-3000" if origin == "--bpf-clang" else None
    monkeypatch.setenv("CLANG", "clang-3000")
    error = failure(LocalCompiler(explicit), "int x;")
    assert str(error).startswith(f"cannot find clang 'clang-3000': {origin} names it")
    assert "use one of these: clang" in str(error)


def test_no_libbpf_headers() -> None:
    error = failure(LocalCompiler(), "#include <bpf/bpf_helpers.h>\n", ("-nostdinc",))
    assert "cannot compile prog.bpf.c: 'bpf/bpf_helpers.h' not found (clang " in str(error)
    assert "prog.bpf.c:1:10: fatal error" in str(error)
    assert "apt-get install libbpf-dev" in str(error)


def test_no_kernel_headers() -> None:
    assert "linux-libc-dev" in str(failure(LocalCompiler(), "#include <linux/bpf.h>\n", ("-nostdinc",)))


def test_a_libc_header() -> None:
    assert "no C library" in str(failure(LocalCompiler(), "#include <stdio.h>\n"))


def test_an_unknown_header_tells_where_it_was_looked_for(tmp_path: Path) -> None:
    request = CompileRequest(code='#include "mine.h"\n', include=(str(tmp_path),))
    with pytest.raises(CompileError, match=r"'mine\.h' not found") as caught:
        LocalCompiler().compile(request)
    assert caught.value.fix is not None
    assert f"{tmp_path}, " in caught.value.fix
    assert "/usr/include" in caught.value.fix


def test_an_unknown_option() -> None:
    error = failure(LocalCompiler(), "int x;", ("-fno-such-option",))
    assert error.details is not None
    assert "unknown argument: '-fno-such-option'" in error.details


def test_clang_crashes() -> None:
    error = failure(LocalCompiler(), "#pragma clang __debug crash\n")
    assert error.why is not None
    assert "crashed" in error.why
    assert error.details is not None
    assert (
        "Stack dump:" in error.details or "frontend command failed" in error.details
    )  # a clang without symbols
    assert "\n#1 0x" not in error.details
    assert "defect of clang" in str(error)


def test_clang_is_killed_by_a_signal(tmp_path: Path) -> None:
    error = failure(LocalCompiler(script(tmp_path / "clang", "kill -SEGV $$")), "int x;")
    assert "crashed (SIGSEGV)" in str(error)


def test_clang_behind_a_script_is_killed_by_a_signal(tmp_path: Path) -> None:
    error = failure(LocalCompiler(script(tmp_path / "clang", "sh -c 'kill -ILL $$'; exit $?")), "int x;")
    assert "crashed (SIGILL)" in str(error)


def test_clang_hangs_and_is_killed_with_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h")
    real = LocalCompiler().clang.path
    note = tmp_path / "pids"
    wrapper = script(tmp_path / "clang", f'{real} "$@" & echo $$ $! >{note}; wait')
    request = CompileRequest(code='#include "pipe.h"\n', include=(str(tmp_path),))
    seconds = 0.25
    while not (note.exists() and note.read_text()):  # a busy machine may not have started it yet
        seconds *= 2
        with pytest.raises(CompileError, match=f"gave no answer within {seconds:g} s"):
            LocalCompiler(wrapper, timeout=seconds).compile(request)
    deadline = time.monotonic() + 600
    while alive := [pid for pid in note.read_text().split() if is_running(pid)]:
        assert time.monotonic() < deadline, f"still running: {alive}"
        time.sleep(0.01)


def test_what_is_asked_for_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "clang"
    path.write_bytes(b"\0not a program")
    path.chmod(0o755)
    error = failure(LocalCompiler(str(path)), "int x;")
    assert str(error).startswith(f"cannot run clang {path}: ENOEXEC")


def test_a_clang_without_the_bpf_target(tmp_path: Path) -> None:
    real = LocalCompiler().clang.path
    # every clang says of an unknown target what a clang without BPF says of "bpf"
    wrapper = script(tmp_path / "clang", f'exec {real} "$@" -target nosuchtarget')
    assert "built without the BPF target" in str(failure(LocalCompiler(wrapper), "int x;"))


@pytest.mark.parametrize("place", ["/sys/bpfmaps", "/dev/null/bpfmaps"])
def test_the_cache_cannot_be_written(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", place)
    error = failure(LocalCompiler(), "int x;")
    assert str(error).startswith(f"cannot write to the object cache {place}/objects: E")
    assert "BPFMAPS_CACHE" in str(error)
    assert error.errno


def in_tiny_file_system(folder: Path, kilobytes: int, code: str, mode: str = "rw") -> str:
    """Returns the error message of a compilation while the cache is on a file system of that size."""
    program = (
        "import sys; from pytest_bpfmaps.compiler import CompileRequest\n"
        "from pytest_bpfmaps.compiler.local_compiler import LocalCompiler\n"
        "from pytest_bpfmaps.errors import CompileError\n"
        "try: LocalCompiler().compile(CompileRequest(code=sys.argv[1]))\n"
        "except CompileError as e: print(e)\n"
    )
    mount = f'mount -t tmpfs -o {mode},mode=700,size={kilobytes}k none {folder} && exec "$@"'
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("this system allows no user namespaces, so no small file system can be mounted")
    command = [*unshare, "sh", "-c", mount, "sh", sys.executable, "-c", program, code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("kilobytes", [4, 64])
def test_the_disk_is_full(kilobytes: int, cache: Path) -> None:
    cache.mkdir()
    message = in_tiny_file_system(cache, kilobytes, "char big[1 << 20] = {1};")
    assert message.startswith(
        f"cannot write to the object cache {cache}/objects: ENOSPC: No space left on device"
    )
    assert "free some space there" in message


def test_too_many_files_are_open() -> None:
    compiler = LocalCompiler()
    assert compiler.clang
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        error = failure(compiler, "int y;")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (error.errno, error.why) == (errno.EMFILE, "EMFILE: Too many open files")
    assert error.fix
    assert "ulimit -n" in error.fix
    assert "writable" not in error.fix
    compiler.compile(CompileRequest(code="int y;"))


def test_the_cache_is_on_a_read_only_disk(cache: Path) -> None:
    cache.mkdir()
    message = in_tiny_file_system(cache, 64, "int x;", "ro")
    assert message.startswith(f"cannot write to the object cache {cache}/objects: EROFS")
    assert "mounted read-only" in message
    assert "BPFMAPS_CACHE" in message
    assert "writable" not in message


def test_the_path_of_the_cache_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / ("x" * 300)))
    error = failure(LocalCompiler(), "int x;")
    assert error.errno == errno.ENAMETOOLONG
    assert error.fix
    assert "shorter" in error.fix
    assert "writable" not in error.fix


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_other_remedy_for_want_of_descriptors(number: int) -> None:
    for wrong in "run as root", None:
        error = BpfError("cannot open", fix=wrong, errno=-number)
        assert error.fix
        assert "limit" in error.fix
        assert "root" not in error.fix
    assert remedy(errno.EACCES, "run as root") == "run as root"


@pytest.mark.parametrize("option", ["-###", "--version"])
def test_clang_that_makes_no_object(option: str) -> None:
    request = CompileRequest(code="int x;", cflags=(option,))
    with pytest.raises(CompileError, match="clang succeeded, but made no object"):
        LocalCompiler().compile(request)


def test_an_error_survives_its_way_between_processes() -> None:
    error = failure(LocalCompiler(), "int x = y;")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    request = CompileRequest(code='#include "n.h"\n', include=(str(tmp_path),))
    compiler = LocalCompiler()
    with pytest.raises(CompileError):
        compiler.compile(request)
    (tmp_path / "n.h").touch()
    assert compiler.compile(request).exists()
