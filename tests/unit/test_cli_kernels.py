from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import pty
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from kernel_files import RELEASE, bzimage, package_files, write

from pytest_bpfmaps.cli import main
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.progress import Progress

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the images are for x86_64"),
    pytest.mark.skipif(
        not shutil.which("depmod", path="/usr/sbin:/sbin:/usr/bin"), reason="needs kmod's depmod"
    ),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BPFMAPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(write(tmp_path, {"bzImage": bzimage()}) / "bzImage")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"bpfmaps {version('pytest-bpfmaps')}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["kernels"],
        ["kernels", "fetch"],
        ["kernels", "add"],
        ["kernels", "remove"],
        ["kernels", "list", "--yaml"],
        ["kernels", "fetch", "--name", "x", "debian:sid", "debian:trixie"],
        ["kernels", "fetch", "--name", "x", "--locked"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: bpfmaps" in capsys.readouterr().err


def test_add_list_remove(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "add", image]) == 0
    assert main(["kernels", "add", image, "--name", "mine"]) == 0
    capsys.readouterr()
    assert main(["kernels", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["6.1", RELEASE], ["mine", RELEASE]]
    assert "no modules" in lines[0]
    assert main(["kernels", "remove", "6.1", "mine"]) == 0
    capsys.readouterr()
    assert main(["kernels", "list"]) == 0
    assert "no kernels yet; get one with: bpfmaps kernels fetch" in capsys.readouterr().out


def test_list_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    main(["kernels", "add", str(write(tmp_path / "package", package_files()))])
    capsys.readouterr()
    assert main(["kernels", "list", "--json"]) == 0
    (kernel,) = json.loads(capsys.readouterr().out)
    assert kernel["name"] == "6.1"
    assert kernel["release"] == RELEASE
    assert kernel["image"] == str(cache / "kernels/6.1/boot" / f"vmlinuz-{RELEASE}")
    assert kernel["modules"] == str(cache / "kernels/6.1")
    assert kernel["source"] == str(tmp_path / "package")
    assert kernel["arch"] == "x86_64"
    assert kernel["size"] > 0


def test_empty_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remove", "6.2"], r"no kernel '6\.2': nothing to remove"),
        (["add", "/nonexistent"], "cannot add kernel /nonexistent: there is no such file or folder"),
        (["add", "/etc/passwd"], "not a kernel image: /etc/passwd: it is a text file"),
        (
            ["add", "/etc/passwd", "/etc/group"],
            "cannot add kernel /etc/passwd: several paths are given, and this one is no package",
        ),
        (["add", sys.executable], "not a kernel image: .* an ELF"),
        (["fetch", "bookworm"], "it is not DISTRIBUTION:SUITE"),
        (["fetch", "gentoo:now"], "this command does not know the distribution 'gentoo'"),
    ],
)
def test_failure_is_exit_code_1_and_says_what_to_do(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(f"^bpfmaps: .*{message}", captured.err, re.M)
    assert "\n  -> " in captured.err
    assert "Traceback" not in captured.err


def test_cache_that_can_not_be_written(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BPFMAPS_CACHE", "/proc/nothing")
    assert main(["kernels", "add", image]) == 1
    assert "bpfmaps: [Errno 2]" in capsys.readouterr().err


def test_progress_goes_to_stderr_as_lines(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["kernels", "add", image])
    captured = capsys.readouterr()
    assert captured.out.split()[:2] == ["6.1", RELEASE]
    assert captured.err.splitlines() == [f"copying {image}", f"unpacking kernel {RELEASE}"]


def test_progress_is_one_live_line_on_a_terminal(image: str) -> None:
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "pytest_bpfmaps.cli", "kernels", "add", image]
    done = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, check=True)
    os.close(terminal)
    shown = b""
    with os.fdopen(reader, "rb") as file, contextlib.suppress(OSError):  # EIO: nobody has the other side
        while part := file.read1(1 << 16):  # a terminal gives its text in parts
            shown += part
    assert b"\n" not in shown
    assert f"\r\033[Kunpacking kernel {RELEASE}".encode() in shown
    assert shown.endswith(b"\r\033[K")
    assert done.stdout.split()[:1] == [b"6.1"]


def test_percent_is_shown_live_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    live, plain = Terminal(), io.StringIO()
    for stream in (live, plain):
        progress = Progress(stream)
        progress.step("getting x", 10)
        progress.step("getting x", 90.4)
    assert live.getvalue() == "\r\033[Kgetting x  10%\r\033[Kgetting x  90%"
    assert plain.getvalue() == "getting x\n"


def test_reader_that_goes_away(image: str) -> None:
    main(["kernels", "add", image])
    command = f"{sys.executable} -m pytest_bpfmaps.cli kernels list --json | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_interrupt_is_exit_code_130(
    image: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Catalogue, *arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Catalogue, "add", interrupted)
    assert main(["kernels", "add", image]) == 130
    assert capsys.readouterr().err.endswith("bpfmaps: interrupted\n")


def test_command_starts_without_heavy_imports() -> None:
    code = "import sys, pytest_bpfmaps.cli as c; c.parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"pytest", "cffi", "pyroute2", "execnet", "pytest_bpfmaps.libbpf"}
