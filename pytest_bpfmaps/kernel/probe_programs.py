"""Loads a minimal program of each type to find out whether the kernel takes it.

libbpf has probes, too. Their answers depend on libbpf's version: each release knows other types, and an older
kernel may not understand what a newer libbpf asks for. The answers of these probes depend only on the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.vmlinux_btf import FUNC, in_modules, type_id, vmlinux_btf
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, opts

SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE
HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS
ABSENT = frozenset({errno.EINVAL, errno.E2BIG, errno.EPERM, errno.EACCES, errno.ENOSYS})
"""Errors of bpf(2) for a type that the kernel lacks or denies; other errors mean that it has the type."""

_LOG_SIZE = 1 << 14
_INSTRUCTION = struct.Struct("=BBhi")


@dataclass(frozen=True, slots=True)
class Trial:
    """A kind of program: its type, ``enum bpf_attach_type``, flags, and the function or type of its target.

    `target` is a name and a kind in the kernel's BTF.
    """

    type: ProgramType
    attach_type: int = 0
    flags: int = 0
    target: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kernel's answer: a positive error number or 0, and the verifier's log."""

    errno: int
    log: str = ""

    @property
    def has_type(self) -> bool:
        """Whether the kernel knows the program type, and this process may use it."""
        return self.errno not in ABSENT

    @property
    def complaint(self) -> str:
        """What the verifier says of the program: its first line that is no instruction, source or state."""
        return next((line for line in self.log.splitlines() if line and not _NO_COMPLAINT.match(line)), "")


def instruction(code: int, *, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Returns one instruction whose destination is R0, in this machine's byte order."""
    registers = src << 4 if sys.byteorder == "little" else src
    return _INSTRUCTION.pack(code, registers, offset, value)


EXIT = instruction(0x95)
RETURN_0 = instruction(0xB7) + EXIT
RETURN_1 = instruction(0xB7, value=1) + EXIT

_NO_COMPLAINT = re.compile(r"\d+: |;|R\d+(_\w+)?=|func#\d|processed \d| *$")

FENTRY = Trial(ProgramType.TRACING, 24, target=("bpf_fentry_test1", FUNC))
LSM = Trial(ProgramType.LSM, 27, target=("bpf_lsm_file_open", FUNC))
# program types that need more than the type; the numbers are enum bpf_attach_type of <linux/bpf.h>
_NEEDS = {
    ProgramType.CGROUP_SOCK_ADDR: Trial(ProgramType.CGROUP_SOCK_ADDR, 10),  # BPF_CGROUP_INET4_CONNECT
    ProgramType.LIRC_MODE2: Trial(ProgramType.LIRC_MODE2, 16),  # BPF_LIRC_MODE2
    ProgramType.CGROUP_SOCKOPT: Trial(ProgramType.CGROUP_SOCKOPT, 21),  # BPF_CGROUP_GETSOCKOPT
    ProgramType.TRACING: FENTRY,
    ProgramType.LSM: LSM,
    ProgramType.SK_LOOKUP: Trial(ProgramType.SK_LOOKUP, 36),  # BPF_SK_LOOKUP
    ProgramType.SYSCALL: Trial(ProgramType.SYSCALL, flags=SLEEPABLE),
    ProgramType.NETFILTER: Trial(ProgramType.NETFILTER, 45),  # BPF_NETFILTER
}


def trial_of(type: ProgramType) -> Trial:
    """Returns the simplest kind of program of a type."""
    return _NEEDS.get(type) or Trial(type)


def try_type(type: ProgramType) -> Verdict:
    """Tries to load a program of a type that returns 0.

    A struct_ops program needs a struct. A kernel that knows such programs refuses one without a struct with a
    special error, `ENOTSUPP`. A program that replaces a function (``ext``) is loaded with that function.
    """
    return _try_extension() if type is ProgramType.EXT else try_program(trial_of(type))


def try_program(trial: Trial, code: bytes = RETURN_0, modules: Sequence[int] = ()) -> Verdict:
    """Tries to load a program. `modules` are descriptors of BTF, which calls refer to by index."""
    settings: dict[str, Any] = {"expected_attach_type": trial.attach_type, "prog_flags": trial.flags}
    table = ffi.new("int[]", [0, *modules])
    if modules:
        settings["fd_array"] = table
    if trial.target is None:
        return _verdict(*_load(trial.type, code, **settings))
    with _found(*trial.target) as (number, module):
        if not number:
            return Verdict(errno.EINVAL, f"the kernel's BTF has no {trial.target[0]}")
        place = {"attach_btf_id": number, "attach_btf_obj_fd": module}
        return _verdict(*_load(trial.type, code, **settings, **place))


@contextlib.contextmanager
def _found(name: str, kind: int) -> Iterator[tuple[int, int]]:
    """Yields the id of a type, and a descriptor of its module's BTF (0 for the kernel); (0, 0) if none."""
    try:
        number = type_id(vmlinux_btf(), name, kind)
    except UnsupportedError:  # a kernel without BTF
        yield 0, 0
        return
    if number:
        yield number, 0
        return
    for number, fd in in_modules(name, kind):
        try:
            yield number, fd
        finally:
            os.close(fd)
        return
    yield 0, 0


def _verdict(fd: int, log: str) -> Verdict:
    if fd >= 0:
        os.close(fd)
    return Verdict(max(-fd, 0), log)


def _load(type: ProgramType, code: bytes, **settings: Any) -> tuple[int, str]:
    """Returns a descriptor, or a negative error number, and the log."""
    log = ffi.new("char[]", _LOG_SIZE)
    given = opts("bpf_prog_load_opts", log_level=1, log_size=_LOG_SIZE, log_buf=log, **settings)
    buffer = ffi.from_buffer(code)
    instructions = ffi.cast("struct bpf_insn *", buffer)
    with capture_log():
        fd = lib.bpf_prog_load(type, ffi.NULL, b"GPL", instructions, len(code) // _INSTRUCTION.size, given)
    return int(fd), ffi.string(log).decode(errors="replace")


def _try_extension() -> Verdict:
    """Tries to load an XDP program, ``int f(struct xdp_md *f)``, and a program that replaces its function."""
    btf = load_function_btf()
    if btf < 0:
        return Verdict(-btf)
    where = ffi.new("uint32_t[]", [0, _FUNCTION_ID])  # struct bpf_func_info
    info = {"prog_btf_fd": btf, "func_info": where, "func_info_cnt": 1, "func_info_rec_size": 8}
    try:
        target, log = _load(ProgramType.XDP, RETURN_0, **info)
        if target < 0:
            return Verdict(-target, log)
        try:
            fd, log = _load(
                ProgramType.EXT, RETURN_0, attach_prog_fd=target, attach_btf_id=_FUNCTION_ID, **info
            )
        finally:
            os.close(target)
    finally:
        os.close(btf)
    return _verdict(fd, log)


_TYPES = struct.pack(
    "=4I3I3I5I3I",
    *(1, 1 << 24, 4, 1 << 24 | 32),  # 1: int, signed
    *(5, 4 << 24, 24),  # 2: struct xdp_md, without its members
    *(0, 2 << 24, 2),  # 3: a pointer to that
    *(0, 13 << 24 | 1, 1, 12, 3),  # 4: a prototype that gives an int and takes that
    *(12, FUNC << 24 | 1, 4),  # 5: a global function of that prototype
)
_STRINGS = b"\0int\0xdp_md\0f\0"
_FUNCTION_BTF = (
    struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_STRINGS)) + _TYPES + _STRINGS
)
INT_ID, _FUNCTION_ID = 1, 5


def load_function_btf() -> int:
    """Returns a descriptor of BTF with an ``int`` (`INT_ID`) and a function; or a negative error number."""
    return int(lib.bpf_btf_load(ffi.from_buffer(_FUNCTION_BTF), len(_FUNCTION_BTF), ffi.NULL))
