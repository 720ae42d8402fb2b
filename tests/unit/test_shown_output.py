"""Tests that no text of another program, and no name out of a file, changes the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import CompileError, VerifierError, VmError, shown_lines
from pytest_bpfmaps.vm.machine.qemu import Log

TITLE = "\x1b]0;title\x07"
SHOWN = r"\x1b]0;title\x07"


@given(st.text())
def test_nothing_but_printable_characters_lines_and_tabs(text: str) -> None:
    shown = shown_lines(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    if all(c.isprintable() or c in "\n\t" for c in text):
        assert shown == text
    shown.encode()


def test_each_part_of_an_error() -> None:
    error = VmError(
        f"a{TITLE}", on=f"b{TITLE}", why=f"c{TITLE}", fix=f"d{TITLE}", details=f"e\n\tf{TITLE}\r\n"
    )
    assert str(error) == f"a{SHOWN} b{SHOWN}: c{SHOWN}\ne\n\tf{SHOWN}\n  -> d{SHOWN}"
    assert str(VerifierError("no", details="\udc9b31m\u202e")) == "no\n\\udc9b31m\\u202e"


def test_words_of_dpkg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / f"linux{TITLE}.deb"
    package.write_bytes(b"!<arch>\nno package")
    assert main(["kernels", "add", str(package)]) == 1
    said = capsys.readouterr().err
    assert SHOWN in said
    assert "\x1b" not in said


def test_a_path_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "add", f"/nowhere/{TITLE}"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_the_console_of_a_guest_and_words_of_qemu() -> None:
    log = Log("console")
    os.write(log.fd, f"one\r\n\ttwo {TITLE}\r\n".encode())
    assert log.tail() == f"one\n\ttwo {SHOWN}"
    log.close()


def test_words_of_ssh(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The program that is called writes what another machine sends."""
    words = tmp_path / "words"
    words.write_text(f"welcome {TITLE}\n")
    command = f"sh -c 'cat {words} >&2'"
    gateway = [sys.executable, "-m", "pytest_bpfmaps.vm.gateway.ssh", os.devnull, command]
    subprocess.run(gateway, input=b"a worker's line\n", check=False, timeout=60)
    assert capfd.readouterr().err == f"welcome {SHOWN}\n"


def test_words_of_clang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    warned = f"#warning a {TITLE}\nint x;\n"
    said: list[str] = []
    LocalCompiler(warn=said.append).compile(CompileRequest(code=warned, name="prog.bpf.c"))
    with pytest.raises(CompileError) as caught:
        LocalCompiler().compile(CompileRequest(code=f"#error a {TITLE}\n", name="prog.bpf.c"))
    for text in (*said, str(caught.value)):
        assert "title" in text
        assert "\x1b" not in text
