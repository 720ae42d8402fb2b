"""Runs programs whose sources say what is expected, by the rules of the kernel's selftests.

The rules are those of ``run_subtest()`` in tools/testing/selftests/bpf/test_loader.c. Each program has an
object of its own. It is loaded alone, except for auxiliary programs. Its log is compared. Then it runs once,
on 64 zero bytes.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_bpfmaps.attach.module_functions import load_object
from pytest_bpfmaps.btf import Btf
from pytest_bpfmaps.btf.decl_tags import function_tags
from pytest_bpfmaps.elf.editor import SHF_EXECINSTR, STT_FUNC, Elf
from pytest_bpfmaps.errors import ExpectationError, LoadError
from pytest_bpfmaps.kernel.bpf_types import MapType, ProgramType
from pytest_bpfmaps.kernel.features import Feature, probe
from pytest_bpfmaps.kernel.privileges import effective_capabilities, only_capabilities
from pytest_bpfmaps.libbpf import capture_log, ffi, lib, syscalls
from pytest_bpfmaps.libbpf.calls import walk
from pytest_bpfmaps.objects import OpenedObject
from pytest_bpfmaps.objects.diagnosis.load_errors import explain_load
from pytest_bpfmaps.programs.prog_run import WITHOUT_PACKET
from pytest_bpfmaps.programs.program import Program
from pytest_bpfmaps.selftests.annotations import FLAGS, Expectation, Expected, expected_of
from pytest_bpfmaps.selftests.rejects import tail, unlike
from pytest_bpfmaps.verifier.expected_messages import Message, mismatch
from pytest_bpfmaps.verifier.log_buffers import WHOLE_SIZES, LogBuffer

_PACKET = bytes(64)  # TEST_DATA_LEN
_SKB_SIZE, _SKB_DATA_END = 192, 80  # of struct __sk_buff in <linux/bpf.h>
_SOCKET_FILTER = 1  # enum bpf_prog_type
_ARCHITECTURES = {
    "x86_64": "X86_64",
    "aarch64": "ARM64",
    "riscv64": "RISCV64",
    "s390x": "s390x",
    "loongarch64": "LOONGARCH",
}
_DROPPED = 1 << 12 | 1 << 21 | 1 << 38 | 1 << 39  # CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF
_UNPRIVILEGED_SWITCH = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
_UNPRIVILEGED_MAPS = {  # types that a user without privileges may create
    MapType.HASH,
    MapType.PERCPU_HASH,
    MapType.HASH_OF_MAPS,
    MapType.PERCPU_CGROUP_STORAGE,
    MapType.ARRAY,
    MapType.RINGBUF,
    MapType.PROG_ARRAY,
    MapType.CGROUP_ARRAY,
    MapType.PERCPU_ARRAY,
    MapType.USER_RINGBUF,
    MapType.ARRAY_OF_MAPS,
    MapType.CGROUP_STORAGE,
    MapType.PERF_EVENT_ARRAY,
}


@dataclass(frozen=True, slots=True)
class Case:
    """One program of the object `path` (called `source` in messages), loaded with privileges or without.

    `all` are the expectations of each program of the object, by name.
    """

    path: Path
    source: str
    program: str
    section: str
    privileged: bool
    all: dict[str, Expected]

    @property
    def name(self) -> str:
        """The program's name, with ``@unpriv`` for a load without privileges."""
        return self.program if self.privileged else f"{self.program}@unpriv"

    @property
    def on(self) -> str:
        """The name of the case in messages."""
        without = "" if self.privileged else ", loaded without privileges"
        return f"program {self.program!r} of {self.source}{without}"

    @property
    def expected(self) -> Expected:
        """What the program's tags say."""
        return self.all[self.program]

    @property
    def expectation(self) -> Expectation:
        """What they say of this load, with or without privileges."""
        found = self.expected.privileged if self.privileged else self.expected.unprivileged
        assert found is not None
        return found


def cases_of(path: Path, source: str) -> list[Case]:
    """Returns the cases of a compiled object in the order of its programs; none when no program has tags.

    Raises `LoadError` for a tag that can't be read, or an object without BTF.
    """
    try:
        elf = Elf(path.read_bytes())
        section = elf.section(".BTF")
        raw = elf.content(section) if section else b""
        sections = _programs(elf)
    except ValueError as e:
        raise LoadError("cannot read", on=source, why=str(e)) from e
    tags = function_tags(Btf(raw)) if raw else {}
    if not any("comment:" in tag for name in sections for tag in tags.get(name, ())):
        return []
    expected = {name: expected_of(name, tags.get(name, ())) for name in sections}
    return [
        Case(path, source, each.program, sections[each.program], privileged, expected)
        for each in expected.values()
        if not each.auxiliary
        for privileged, asked in ((True, each.privileged), (False, each.unprivileged))
        if asked is not None
    ]


def _programs(elf: Elf) -> dict[str, str]:
    """Returns the section of each function that libbpf takes for a program: all outside of .text."""
    code = {s.index: s.name for s in elf.sections if s.flags & SHF_EXECINSTR and s.name != ".text"}
    found = [s for s in elf.symbols() if s.type == STT_FUNC and s.section in code]
    return {s.name: code[s.section] for s in sorted(found, key=lambda s: (s.section, s.value))}


def lacking(case: Case) -> Feature | None:
    """Returns the type of program if this kernel lacks it, else None."""
    number = ffi.new("uint32_t *")
    section = case.section.removeprefix("?").encode()
    if lib.libbpf_prog_type_by_name(section, number, ffi.new("uint32_t *")) < 0:
        return None  # the load will say so
    type = ProgramType.from_number(number[0])
    feature = probe("program_type", str(type)) if isinstance(type, ProgramType) else None
    return feature if feature is not None and not feature else None


def cannot_run(case: Case) -> str | None:
    """Returns why the case has no meaning on this machine; None when it has one."""
    expected = case.expected
    here = _ARCHITECTURES.get(platform.machine(), "")
    if expected.architectures and here not in expected.architectures:
        return f"for {', '.join(expected.architectures)} only, this machine is {platform.machine()}"
    if expected.jit is not None and expected.jit != _is_jit_enabled():
        return (
            "for the interpreter only (net.core.bpf_jit_enable=0)" if not expected.jit else "for the JIT only"
        )
    if expected.btf_path:
        return f"it wants the types of {expected.btf_path} in place of the kernel's, which is not supported"
    if not case.privileged and _UNPRIVILEGED_SWITCH.exists():
        value = _UNPRIVILEGED_SWITCH.read_text().strip()
        if value != "0":
            return f"kernel.unprivileged_bpf_disabled is {value}: nobody loads programs without privileges"
    return None


def spares_checks() -> bool:
    """Returns whether the verifier leaves out checks of speculation, which it makes for unprivileged users.

    ``mitigations=off`` on the kernel's command line does that (Linux 6.7, commit bc5bc309db45).
    """
    return "mitigations=off" in Path("/proc/cmdline").read_text().split()


@contextmanager
def anybody_loads() -> Iterator[None]:
    """Lets users without privileges load programs meanwhile, where an administrator can allow it.

    The value 1 of ``kernel.unprivileged_bpf_disabled`` stays until the next boot.
    """
    before = _UNPRIVILEGED_SWITCH.read_text() if _UNPRIVILEGED_SWITCH.exists() else ""
    if before.strip() != "2":
        yield
        return
    _UNPRIVILEGED_SWITCH.write_text("0")
    try:
        yield
    finally:
        _UNPRIVILEGED_SWITCH.write_text(before)


def run_case(case: Case, *, portable: bool = False) -> list[str]:
    """Loads the program, compares its log, and runs it. Returns the expectations that could not be checked.

    Raises `ExpectationError` for what is not as expected, `LoadError` for a load that should succeed.
    """
    wanted = case.expectation
    with ExitStack() as stack:
        if not case.privileged:
            _teach_libbpf(case)
            dropped = stack.enter_context(ExitStack())
            kept = effective_capabilities() & ~_DROPPED | wanted.capabilities
            dropped.enter_context(only_capabilities(kept))
        opened = stack.enter_context(OpenedObject(case.path, name=case.source, portable=portable))
        log = _prepare(opened, case)
        with capture_log() as said:
            result = load_object(opened.handle)
        if not case.privileged:
            dropped.close()  # the kernel's tests run the program with all capabilities, too
        if wanted.failure and result >= 0:
            raise ExpectationError(
                "the verifier accepted",
                on=case.on,
                why="its source says __failure",
                fix="make the program break the rule that it is about, or write __success",
                details=tail(log.text),
                log=log.text,
            )
        if result < 0 and not (wanted.failure and log.text):  # empty log: the verifier never saw it
            raise explain_load(opened.attempt, -result, said.text, {p.name: log for p in opened.programs})
        _compare(case, log.text, wanted.messages)
        if wanted.executes and not wanted.failure:
            _run(opened, case)
    return _unchecked(wanted)


def _prepare(opened: OpenedObject, case: Case) -> LogBuffer:
    """Chooses the programs and maps to load. Returns the buffer of the program's log."""
    expected = case.expected
    for program in opened.programs:
        mine = program.name == case.program
        program.autoload = mine or case.privileged in case.all[program.name].auxiliary
    handle = opened.programs[case.program].handle
    flags = (int(lib.bpf_program__flags(handle)) | _usual_flags()) & ~expected.clear_flags
    lib.bpf_program__set_flags(handle, flags | expected.set_flags)
    for each in walk(lib.bpf_object__next_map, opened.handle):
        lib.bpf_map__set_pin_path(each, ffi.NULL)
        if not case.privileged:
            lib.bpf_map__set_autocreate(each, _anybody_creates(each))
    # At level 0 the verifier says nothing of a program that it accepts. libbpf asks for the log of a rejected
    # one.
    return LogBuffer(handle, expected.log_level, WHOLE_SIZES[1])


def _anybody_creates(handle: object) -> bool:
    seeded = int(lib.bpf_map__map_flags(handle)) & 1 << 6  # BPF_F_ZERO_SEED
    return MapType.from_number(lib.bpf_map__type(handle)) in _UNPRIVILEGED_MAPS and not seeded


def _compare(case: Case, text: str, messages: Sequence[Message], of: str = "verifier's log") -> None:
    wrong = mismatch(text, messages)
    if wrong is not None:
        raise unlike(wrong, case.on, text, of)


class _Trial(Program):
    """A program that runs as in the kernel's own suite, where nobody attaches tracing programs before."""

    def _check_traced(self) -> None:
        pass


def _run(opened: OpenedObject, case: Case) -> None:
    wanted = case.expectation
    program = _Trial(opened.programs[case.program].handle, [])
    packet = b"" if program.type in WITHOUT_PACKET else _PACKET
    try:
        with _struct_ops(opened):
            got = program.run(packet, ctx=_linear(case.expected.linear_size)).retval
        _compare_value(case, got)
        for stream, messages in (("stderr", wanted.stderr), ("stdout", wanted.stdout)):
            if messages:
                _compare(case, getattr(program, stream), messages, of=f"program's {stream}")
    finally:
        program.invalidate()


def _compare_value(case: Case, got: int) -> None:
    wanted = case.expectation.retval
    if wanted is not None and (got ^ wanted) & 0xFFFFFFFF:
        number = got & 0xFFFFFFFF
        signed = number - (1 << 32) if number >> 31 else number
        raise ExpectationError(
            "the return value of",
            on=case.on,
            why=f"it is {signed} ({number:#x}), and __retval says {wanted}",
            fix="the program ran on 64 zero bytes: follow them through the source",
        )


def _linear(size: int) -> bytes | None:
    if not size:
        return None
    ctx = bytearray(_SKB_SIZE)
    struct.pack_into("=I", ctx, _SKB_DATA_END, size)
    return bytes(ctx)


@contextmanager
def _struct_ops(opened: OpenedObject) -> Iterator[None]:
    """Keeps the object's struct_ops maps registered meanwhile."""
    with ExitStack() as stack:
        for each in walk(lib.bpf_object__next_map, opened.handle):
            if lib.bpf_map__type(each) == MapType.STRUCT_OPS and lib.bpf_map__autocreate(each):
                link = lib.bpf_map__attach_struct_ops(each)
                if link == ffi.NULL:
                    raise LoadError(
                        "cannot register", on=f"a struct_ops map of {opened.name}", errno=ffi.errno
                    )
                stack.callback(lib.bpf_link__destroy, link)
        yield


def _unchecked(wanted: Expectation) -> list[str]:
    jited = wanted.jited.get(_ARCHITECTURES.get(platform.machine(), ""))
    named = (
        ("__xlated (the rewritten instructions)", wanted.xlated),
        ("__jited (the machine code)", jited),
    )
    return [name for name, messages in named if messages]


@cache
def _is_jit_enabled() -> bool:
    try:
        return Path("/proc/sys/net/core/bpf_jit_enable").read_text().strip() != "0"
    except OSError:
        return True  # a kernel with the JIT always on has no such switch


@cache
def _usual_flags() -> int:
    """Returns the flags with which the kernel's selftests load every program, if this kernel knows them."""
    names = ("BPF_F_TEST_RND_HI32", "BPF_F_TEST_REG_INVARIANTS")
    return sum(FLAGS[name] for name in names if _takes_flag(FLAGS[name]))


def _takes_flag(flag: int) -> bool:
    """Returns whether BPF_PROG_LOAD takes the flag; tried with a program that returns at once."""
    code = ffi.from_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ffi.new("char[]", b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII", _SOCKET_FILTER, 2, syscalls.address(code), syscalls.address(licence), 0, 0, 0, 0, flag
    )
    try:
        os.close(syscalls.bpf(syscalls.BPF_PROG_LOAD, attributes))
    except OSError:
        return False
    return True


@cache
def _teach(path: Path, program: str) -> None:
    with OpenedObject(path) as opened, capture_log():
        for each in opened.programs:
            each.autoload = each.name == program
        load_object(opened.handle)


def _teach_libbpf(case: Case) -> None:
    """Has libbpf learn what the kernel can do while this process has privileges; else it learns wrong facts.

    libbpf probes once, and remembers the answers.
    """
    _teach(case.path, case.program)
