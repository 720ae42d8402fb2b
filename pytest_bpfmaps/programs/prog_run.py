"""Runs a program without an event: ``BPF_PROG_TEST_RUN``."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps.btf import Codec
from pytest_bpfmaps.btf.codec import BoolCodec
from pytest_bpfmaps.btf.enums import EnumCodec
from pytest_bpfmaps.errors import (
    ENOTSUPP,
    BpfError,
    LoadError,
    MapTypeError,
    MapValueError,
    NoValueError,
    UnsupportedError,
)
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.release import release
from pytest_bpfmaps.kernel.return_values import NAMES
from pytest_bpfmaps.libbpf import ffi, lib, opts
from pytest_bpfmaps.libbpf.calls import failure, reason
from pytest_bpfmaps.libbpf.syscalls import BPF_PROG_LOAD, address, bpf, pack
from pytest_bpfmaps.programs.context import decode_context, encode_context
from pytest_bpfmaps.programs.packet import Packet
from pytest_bpfmaps.triggers.pcap import Frame, write_pcap

_LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_BATCH = 64  # frames, the kernel's own default
_ROOM = 4096  # bytes by which a packet may grow
_ONE_PAGE = 3500  # bytes of a packet that fit into one page, beside the kernel's own data
_MOST = (1 << 31) - 1  # repetitions
_MOST_OF_SYSCALL = 0xFFFF  # bytes of a syscall program's context, U16_MAX
_ETHERNET = 14  # bytes of header

_SKB = frozenset(
    ProgramType[name]
    for name in ("SCHED_CLS", "SCHED_ACT", "CGROUP_SKB", "SOCKET_FILTER", "LWT_IN", "LWT_OUT", "LWT_XMIT")
)
_GIVES_CONTEXT = _SKB | {ProgramType.XDP, ProgramType.SK_LOOKUP, ProgramType.LWT_SEG6LOCAL}
WITHOUT_PACKET = (
    ProgramType.SK_LOOKUP,
    ProgramType.SYSCALL,
    ProgramType.RAW_TRACEPOINT,
    ProgramType.RAW_TRACEPOINT_WRITABLE,
)
_ONCE = WITHOUT_PACKET[1:]
_CALLED = ("bpf_fentry_test", "bpf_modify_return_test")  # the functions that a run of tracing programs calls
_NOT_MEASURED = (*_ONCE, ProgramType.TRACING)


class RunResult:
    """What `Program.run` returns.

    `data` is the packet and `ctx` the context after the program ran. A field of `ctx` that the kernel does
    not give back raises `NoValueError`.
    """

    __slots__ = ("_duration", "_retval", "ctx", "data")

    def __init__(self, retval: int | None, data: Packet, ctx: Any, duration_ns: int | None) -> None:
        self._retval = retval
        self._duration = duration_ns
        self.data = data
        self.ctx = ctx

    @property
    def duration_ns(self) -> int:
        """The mean time of one repetition, in nanoseconds.

        Raises `NoValueError` for program types whose runs the kernel does not measure.
        """
        if self._duration is None:
            raise NoValueError(
                "cannot read the duration",
                on="of a run",
                why="the kernel does not measure the runs of syscall, raw tracepoint and tracing programs",
                fix="measure around run with time.perf_counter_ns()",
            )
        return self._duration

    @property
    def retval(self) -> int:
        """The program's return value, with the sign of its C type.

        It is a member of an `IntEnum` if values of this program type have names: `XDP_DROP`, `TC_ACT_SHOT`.
        Raises `NoValueError` for a run with live frames.
        """
        if self._retval is None:
            raise NoValueError(
                "cannot read the return value",
                on="of a run with live frames",
                why="the kernel acts on it, but does not report it",
                fix="run it without live, or let the program count in a map",
            )
        return self._retval

    def write_pcap(self, path: str | os.PathLike[str]) -> None:
        """Writes the packet after the run into a capture, for tcpdump and Wireshark. Raises OSError."""
        write_pcap(path, [Frame(bytes(self.data))])

    def __bool__(self) -> bool:
        """Raises `MapTypeError`: a condition such as ``assert run(packet)`` would hold for every verdict."""
        raise self._refuse("use", "as a condition")

    def __eq__(self, other: object) -> bool:
        """Returns whether it is this result. Raises `MapTypeError` for anything else, such as a verdict."""
        if other is self:
            return True
        raise self._refuse("compare", f"with {other!r}")

    __hash__ = object.__hash__

    def _refuse(self, what: str, how: str) -> MapTypeError:
        verdict = getattr(self._retval, "name", self._retval)
        return MapTypeError(
            f"cannot {what} the result of a run {how}",
            why="it has a return value, a packet and a context",
            fix=f"take one of them: result.retval == {verdict}, result.data, result.ctx",
        )

    def __repr__(self) -> str:
        shown = [f"retval={self._retval!r}", f"data=<{self.data.summary()}>"]
        shown += [] if self.ctx is None else [f"ctx={self.ctx!r}"]
        shown += [] if self._duration is None else [f"duration_ns={self._duration}"]
        return f"RunResult({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Runnable:
    """A program to run: its descriptor, its type, the codecs of its context and of its return value.

    `on` is its name in messages.
    """

    fd: int
    type: ProgramType | int
    codec: Codec | None
    returns: Codec | None
    on: str


def run_program(
    program: Runnable, data: Any, ctx: Any, repeat: int, cpu: int | None, *, live: bool
) -> RunResult:
    """Runs a program; see `Program.run`."""
    packet = _packet(program, data)
    context = _context(program, ctx, packet)
    _check(program, packet, repeat, live)
    given = bytearray(context or b"")
    out = bytearray(len(packet) + _ROOM if packet and not live else 0)
    wants_context = program.type in _SKB or (context and program.type in _GIVES_CONTEXT)
    ctx_out = bytearray(max(_ROOM, len(given)) if wants_context else 0)
    # 0 means once; some types take no other number
    settings = opts("bpf_test_run_opts", repeat=0 if repeat == 1 else repeat)
    if live:
        settings.flags, settings.batch_size = _LIVE_FRAMES, _BATCH
    keep = [
        _place(settings, *each)
        for each in (
            ("data", "in", packet),
            ("data", "out", out),
            ("ctx", "in", given),
            ("ctx", "out", ctx_out),
        )
    ]
    with _on_cpu(cpu, program.on):
        result = lib.bpf_prog_test_run_opts(program.fd, settings)
    del keep
    if result < 0:
        raise _refused(program, -result, packet, context, live=live)
    data_out = Packet(out[: settings.data_size_out])
    return RunResult(
        retval=None if live else _retval(program, settings.retval),
        data=data_out,
        ctx=_context_after(program, given, ctx_out[: settings.ctx_size_out], data_out),
        duration_ns=None if program.type in _NOT_MEASURED else settings.duration,
    )


def _place(settings: Any, what: str, direction: str, data: bytes | bytearray) -> Any:
    """Points the settings to a buffer, and returns what the caller must keep until the call.

    `what` is ``data`` or ``ctx``. `direction` is ``in`` for a program's input, ``out`` for its output.
    """
    buffer = ffi.from_buffer(data)
    if data:
        setattr(settings, f"{what}_{direction}", buffer)
        setattr(settings, f"{what}_size_{direction}", len(data))
    return buffer


def _packet(program: Runnable, data: Any) -> bytes:
    if isinstance(data, str | int):
        raise MapTypeError(
            f"cannot run {program.on} on", on=repr(data), why=f"it is {type(data).__name__}", fix="give bytes"
        )
    return bytes(data)


def _context(program: Runnable, ctx: Any, packet: bytes) -> bytes | None:
    """Returns the bytes of the context that the program gets; None if the kernel makes one."""
    if ctx is None:
        if program.type is not ProgramType.SK_LOOKUP:
            return None
        ctx = {}  # such a program has no packet, so the kernel needs a context
    if program.type is ProgramType.XDP and isinstance(ctx, Mapping) and "data_end" not in ctx:
        ctx = {**ctx, "data_end": len(packet)}  # the kernel takes no other value
    return encode_context(ctx, program.codec, program.on)


def _retval(program: Runnable, number: int) -> int:
    """Returns the return value with its sign; `number` has the 32 bits that the kernel gives."""
    if program.type is ProgramType.TRACING:  # this is the value of the functions that the kernel calls
        return number
    codec = program.returns
    size = 4 if codec is None else min(codec.size, 4)
    raw = number.to_bytes(4, sys.byteorder)[:size]
    signed = not isinstance(codec, BoolCodec) and getattr(codec, "signed", True)
    value = int.from_bytes(raw, sys.byteorder, signed=signed)
    names = NAMES.get(program.type)
    if names is not None:
        return names(value) if value in names._value2member_map_ else value
    member: int = codec.from_int(value) if isinstance(codec, EnumCodec) else value
    return member


def _context_after(program: Runnable, given: bytearray, out: bytearray, data: bytes) -> Any:
    """Returns the context after the run. The program's type decides where it is."""
    if program.type is ProgramType.SYSCALL:  # written in place
        return decode_context(bytes(given), program.codec, program.type) if given else None
    if program.type is ProgramType.FLOW_DISSECTOR:  # the kernel puts the result where others have the packet
        return decode_context(data, program.codec, program.type)
    return decode_context(bytes(out), program.codec, program.type) if out else None


def _check(program: Runnable, packet: bytes, repeat: int, live: bool) -> None:
    """Refuses what no kernel takes; the kernel itself would only say EINVAL."""
    why = fix = None
    if not 0 <= repeat <= _MOST:  # to the kernel, -1 means four thousand million times
        raise MapValueError(
            "cannot run", on=program.on, why=f"repeat is {repeat}", fix=f"give a number from 1 to {_MOST}"
        )
    if live and program.type is not ProgramType.XDP:
        why, fix = f"live frames are for XDP, not for programs of type {program.type}", "leave out live"
    elif packet and program.type in WITHOUT_PACKET:
        why, fix = f"programs of type {program.type} get a context and no packet", "give ctx, not data"
    elif repeat != 1 and program.type in _ONCE:
        why, fix = f"the kernel runs programs of type {program.type} once at a time", "call run in a loop"
    if why:
        raise UnsupportedError("cannot run", on=program.on, why=why, fix=fix, errno=errno.EINVAL)


def check_traced(section: str, on: str, *, attached: bool) -> None:
    """Refuses a tracing program that a run would not run, although the kernel would return 0.

    The kernel calls functions of its own, and so the programs that are attached to them. `section` is the
    program's, with the function that it was loaded for.
    """
    kind, _, target = section.lstrip("?").partition("/")
    function = target.rpartition(":")[2]
    if kind.removesuffix(".s") not in ("fentry", "fexit", "fmod_ret", "fsession"):
        why, fix = (
            "the kernel runs no programs of that kind by themselves",
            "attach it and trigger a real event",
        )
        if kind.removesuffix(".s") == "iter":
            fix = "an iterator is read, not run: program.attach().read()"
    elif not function.startswith(_CALLED):
        why = (
            f"a run calls {_CALLED[0]}1() and its like in the kernel, and not {function or 'its function'}()"
        )
        fix = "attach it and call that function, or cause the event that does"
    elif not attached:
        why, fix = f"a run calls {function}(), and the program is not attached to it", "attach it before"
    else:
        return
    raise UnsupportedError("cannot run", on=on, why=why, fix=fix, errno=errno.EOPNOTSUPP)


@contextlib.contextmanager
def _on_cpu(cpu: int | None, on: str) -> Iterator[None]:
    """Moves this thread to that CPU until the end: a program runs on the CPU of the calling thread."""
    if cpu is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as e:
        allowed = ", ".join(map(str, sorted(before)))
        why = f"CPU {cpu} does not exist, or this process may not use it"
        raise LoadError("cannot run", on=on, why=why, fix=f"CPUs: {allowed}", errno=e.errno) from e
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _refused(program: Runnable, number: int, packet: bytes, context: bytes | None, *, live: bool) -> BpfError:
    if number in (ENOTSUPP, errno.EOPNOTSUPP):
        why = f"Linux {release()} has no BPF_PROG_TEST_RUN for programs of type {program.type}"
        fix = "attach it and trigger a real event instead"
        return UnsupportedError("cannot run", on=program.on, why=why, fix=fix, errno=errno.EOPNOTSUPP)
    if number == errno.EINVAL and program.type is ProgramType.XDP:
        if live and not _xdp_takes(_LIVE_FRAMES, b""):
            why = f"Linux {release()} has no live frames for XDP (they came with 5.18, commit b530e9e1063e)"
            return UnsupportedError("cannot run", on=program.on, why=why, fix="leave out live", errno=number)
        if context and not _xdp_takes(0, struct.pack("=5I", 0, len(_PROBE), 0, 0, 0)):
            why = f"Linux {release()} takes no context for XDP (kernels from 5.15 on do, commit 47316f4a3053)"
            return UnsupportedError("cannot run", on=program.on, why=why, fix="leave out ctx", errno=number)
    hint = _fix(program, number, packet, context)
    return failure(number, LoadError, "cannot run", on=program.on, why=reason(number), fix=hint)


def _fix(program: Runnable, number: int, packet: bytes, context: bytes | None) -> str | None:
    """Returns what to do about the kernel's error number; None if that is not known."""
    if number == errno.ENODEV and context:
        return "give ifindex and ingress_ifindex of interfaces in this thread's network namespace"
    if number == errno.EAFNOSUPPORT and program.type is ProgramType.SK_LOOKUP:
        return (
            'say what is looked up: run(ctx={"family": socket.AF_INET, "protocol": socket.IPPROTO_TCP, '
            '"local_ip4": …, "local_port": 80}); for socket.AF_INET6 it is local_ip6'
        )
    if number not in (errno.EINVAL, errno.EMSGSIZE):
        return None
    if program.type in (ProgramType.RAW_TRACEPOINT, ProgramType.RAW_TRACEPOINT_WRITABLE):
        return "give as many numbers as the program reads of its context, 12 at most: run(ctx=[0] * 12)"
    if program.type is ProgramType.SYSCALL:
        return f"its context has as many bytes as the program reads, and at most {_MOST_OF_SYSCALL}"
    if program.type not in WITHOUT_PACKET and len(packet) < _ETHERNET:
        return f"give a packet with at least an Ethernet header: {_ETHERNET} bytes"
    if len(packet) > _ONE_PAGE and program.type not in WITHOUT_PACKET:
        more = ' unless the section is "xdp.frags" (Linux 5.18)' if program.type is ProgramType.XDP else ""
        return (
            f"the kernel puts the packet and its own data into one page{more}: give {_ONE_PAGE} bytes at most"
        )
    if context and program.type is ProgramType.XDP:
        return (
            "set data_end to the size of data, data_meta and egress_ifindex to 0, data to the size of the "
            "metadata at its start (a multiple of 4), and rx_queue_index only together with ingress_ifindex"
        )
    if context and program.type in _SKB:
        return (
            "set only mark, priority, ingress_ifindex, ifindex, cb, tstamp, wire_len, gso_segs and gso_size; "
            "the other fields must be 0"
        )
    if context and program.type is ProgramType.SK_LOOKUP:
        return "set family to AF_INET or AF_INET6, protocol to IPPROTO_TCP or IPPROTO_UDP, and cookie to 0"
    return None


_PROBE = bytes(64)  # a packet
_XDP_DROP = bytes.fromhex("b700000001000000 9500000000000000")  # r0 = 1; exit


def _xdp_takes(flags: int, ctx: bytes) -> bool:
    """Returns whether this kernel runs a minimal XDP program with these flags and this context."""
    code, licence = ffi.from_buffer(_XDP_DROP), ffi.new("char[]", b"GPL")
    instructions = len(_XDP_DROP) // 8
    where = ("Q", address(code)), ("Q", address(licence))
    fd = bpf(BPF_PROG_LOAD, pack(("I", ProgramType.XDP), ("I", instructions), *where))
    try:
        settings = opts("bpf_test_run_opts", flags=flags, batch_size=_BATCH if flags else 0)
        packet, context = ffi.from_buffer(_PROBE), ffi.from_buffer(ctx)
        settings.data_in, settings.data_size_in = packet, len(_PROBE)
        if ctx:
            settings.ctx_in, settings.ctx_size_in = context, len(ctx)
        return int(lib.bpf_prog_test_run_opts(fd, settings)) >= 0
    finally:
        os.close(fd)
