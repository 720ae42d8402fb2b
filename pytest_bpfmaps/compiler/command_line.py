"""Makes clang's command line for a BPF object."""

from __future__ import annotations

import functools
import os
import platform

from pytest_bpfmaps.compiler.counting import counting_flags
from pytest_bpfmaps.compiler.request import CompileRequest
from pytest_bpfmaps.errors import CompileError

# uname's machine -> the suffix of __TARGET_ARCH_* in libbpf's bpf_tracing.h
_ARCHITECTURES = {
    "x86_64": "x86",
    "i686": "x86",
    "aarch64": "arm64",
    "armv7l": "arm",
    "s390x": "s390",
    "ppc64le": "powerpc",
    "ppc64": "powerpc",
    "riscv64": "riscv",
    "loongarch64": "loongarch",
    "mips64": "mips",
}
# Debian's name of the machine's folder in /usr/include, if it is not MACHINE-linux-gnu
_MULTIARCH = {
    "i686": "i386-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "ppc64le": "powerpc64le-linux-gnu",
    "mips64": "mips64el-linux-gnuabi64",
}
# Options whose meaning does not depend on the working folder.
_PATHLESS = ("-D", "-U", "-O", "-g", "-m", "-std=")

ENVIRONMENT = ("CPATH", "C_INCLUDE_PATH", "CCC_OVERRIDE_OPTIONS", "COMPILER_PATH", "SOURCE_DATE_EPOCH")
"""Variables that change what clang makes of the same command line."""


@functools.cache
def target_flags() -> tuple[str, ...]:
    """Returns the options that are the same for every source on this machine."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise CompileError(
            "cannot compile for this machine",
            on=machine,
            why="libbpf's bpf_tracing.h has no __TARGET_ARCH_* for it",
            fix=f"compile on one of these machines: {', '.join(_ARCHITECTURES)}",
        )
    flags = ["-g", "-O2", "-Wall", "-target", "bpf", f"-D__TARGET_ARCH_{_ARCHITECTURES[machine]}"]
    flags += ["-fno-stack-protector", "-fno-color-diagnostics", "-fno-crash-diagnostics"]
    # In newer kernels (7.2) an unnamed member may be a struct with a name. Without this its fields are lost.
    flags += ["-fms-extensions", "-Wno-microsoft-anon-tag"]
    # clang leaves the multiarch folder out for BPF, but linux/types.h needs its asm/types.h.
    multiarch = f"/usr/include/{_MULTIARCH.get(machine, f'{machine}-linux-gnu')}"
    if os.path.isdir(multiarch):
        flags += ["-idirafter", multiarch]
    # Our folder comes last, so that clang finds a project's own header of the same name first.
    flags += ["-idirafter", os.path.join(os.path.dirname(os.path.dirname(__file__)), "include")]
    return tuple(flags)


def flags_for(request: CompileRequest) -> list[str]:
    """Returns all options for `request` except its input and output."""
    own = [os.path.dirname(request.source)] if request.source else []
    flags = list(target_flags())
    for folder in (*own, *request.include):
        flags += ["-I", os.path.abspath(folder)]
    flags += [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in request.defines]
    return [*flags, *request.cflags, *(counting_flags() if request.counting else ())]


def surroundings(request: CompileRequest) -> dict[str, str]:
    """Returns what else changes the result: environment variables, and the working folder.

    The folder is only included if an option may name a relative path.
    """
    found = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    if any(not _pathless(flag) for flag in request.cflags):
        found["cwd"] = os.getcwd()
    return found


def _pathless(flag: str) -> bool:
    warning = flag.startswith("-W") and "," not in flag
    return warning or flag.startswith(_PATHLESS)
