"""The other sides: C programs that are built here, and tools that may be installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

from benchmark import WALL, Absent

HERE = Path(__file__).parent


@cache
def scratch() -> Path:
    """Makes a folder that is deleted with this process."""
    keep = tempfile.TemporaryDirectory(prefix="bench-")
    scratch_folders.append(keep)
    return Path(keep.name)


scratch_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def c_peer() -> Path:
    """Builds peer.c with the libbpf that is installed, and returns its path."""
    if shutil.which("gcc") is None or not Path("/usr/include/bpf/libbpf.h").exists():
        raise Absent("apt-get install gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev")
    program = scratch() / "peer"
    libraries = ["-lbpf", "-lelf", "-lz"]
    command = ["gcc", "-O2", "-g", "-Wall", "-o", str(program), str(HERE / "peer.c"), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"gcc failed: {done.stderr.strip().splitlines()[-1]}")
    return program


def c_figure(*arguments: object) -> float:
    """Returns what the C program prints for a command."""
    done = subprocess.run(
        [str(c_peer()), *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def seconds_of(command: list[str], folder: Path | None = None) -> float:
    """Returns what a program takes from start to end. Python finds modules in its `folder`, too."""
    began = time.perf_counter()
    environment = os.environ if folder is None else {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Absent(f"{command[0]} ended with exit code {process.returncode}")
    return time.perf_counter() - began if WALL in os.environ else used.ru_utime + used.ru_stime


class Bcc:
    """A Python process with bcc, which has its own map and ring buffer; `ask` measures once."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        source, version = kernel_headers()
        environment = {**os.environ, "BCC_KERNEL_SOURCE": source, "BCC_LINUX_VERSION_CODE": str(version)}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            ["/usr/bin/python3", str(HERE / "peer_bcc.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        stack.callback(self._end)
        self._answer()

    def ask(self, command: str) -> float:
        """Returns the figure for a command of peer_bcc.py."""
        if self._process.poll() is not None:
            raise Absent("bcc ended before; its message is above")
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("figure "):  # bcc prints warnings between figures
                return float(line.split()[1])
        raise Absent(f"bcc ended with exit code {self._process.wait()}; its message is above")

    def _end(self) -> None:
        if self._process.poll() is None and self._process.stdin:
            self._process.stdin.close()
        self._process.wait(10)


_started: list[Bcc] = []


def bcc(stack: contextlib.ExitStack) -> Bcc:
    """Returns the one process with bcc, and starts it when it is first needed."""
    if not _started:
        if subprocess.run(
            ["/usr/bin/python3", "-c", "import bcc"], capture_output=True, check=False
        ).returncode:
            raise Absent("apt-get install python3-bpfcc linux-headers-amd64")
        _started.append(Bcc(stack))
    return _started[0]


@cache
def kernel_headers() -> tuple[str, int]:
    """Returns the headers that bcc compiles with, and their LINUX_VERSION_CODE.

    Debian splits the headers into two packages. Their files are merged into one folder.
    """
    given = os.environ.get("BCC_KERNEL_SOURCE"), os.environ.get("BCC_LINUX_VERSION_CODE")
    if given[0] and given[1]:
        return given[0], int(given[1])
    for common in sorted(Path("/usr/src").glob("linux-headers-*-common"), reverse=True):
        flavours = [p for p in common.parent.glob(f"{common.name.removesuffix('-common')}-*") if p != common]
        for flavour in flavours:
            merged = scratch() / "headers"
            merged.mkdir(exist_ok=True)
            for package in (common, flavour):
                for part in ("include", "arch"):
                    subprocess.run(["cp", "-a", "--remove-destination", package / part, merged], check=True)
            text = (merged / "include/generated/uapi/linux/version.h").read_text()
            found = re.search(r"LINUX_VERSION_CODE (\d+)", text)
            if found:
                return str(merged), int(found[1])
    raise Absent(
        "bcc needs kernel headers: apt-get install linux-headers-amd64, or set BCC_KERNEL_SOURCE and "
        "BCC_LINUX_VERSION_CODE"
    )


def bpftool() -> str:
    """Returns the path of bpftool."""
    found = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Absent("apt-get install bpftool")
    return found
