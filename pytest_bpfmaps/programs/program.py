"""Programs in the kernel."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pytest_bpfmaps.attach.dispatch import attach_program
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.attach.section_targets import kind
from pytest_bpfmaps.attach.tracepoints import look_for_same_named
from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import ClosedError, LoadError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.program_code import function_types
from pytest_bpfmaps.kernel.release import is_emulated
from pytest_bpfmaps.kernel.run_counts import LOADED, STATISTICS
from pytest_bpfmaps.libbpf import check, ffi, lib, to_str
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.programs.context import context_codec, return_codec
from pytest_bpfmaps.programs.prog_run import Runnable, RunResult, check_traced, run_program
from pytest_bpfmaps.programs.streams import Streams
from pytest_bpfmaps.programs.verifier_stats import VerifierStats
from pytest_bpfmaps.triggers.pcap import Frame, read_pcap, write_pcap
from pytest_bpfmaps.verifier.figures import Figures, read_figures
from pytest_bpfmaps.verifier.walk import Walk

_RUNS = 100  # that a failing test can show


def instructions_of(handle: Any) -> bytes:
    """Returns the instructions of libbpf's program, as they are at this time."""
    size = 8 * lib.bpf_program__insn_cnt(handle)
    return bytes(ffi.buffer(ffi.cast("char *", lib.bpf_program__insns(handle)), size))


class Program:
    """A program in the kernel."""

    def __init__(
        self,
        handle: Any,
        links: list[Link],
        codecs: Codecs | None = None,
        log: str = "",
        pins: Pins | None = None,
        *,
        walk: Callable[[], tuple[str, Walk]] | None = None,
    ) -> None:
        self._handle = handle
        self._log = log
        self._runs: deque[tuple[float, bytes, RunResult]] = deque(maxlen=_RUNS)
        self._load_again = walk
        self._walked: tuple[str, Walk] | None = None
        self._stats: VerifierStats | None = None  # of the plain program, if this one counts its lines
        self._links = links
        self._codecs = codecs  # those of its object, for the types of its context and return value
        self.name = to_str(lib.bpf_program__name(handle))
        self.section = to_str(lib.bpf_program__section_name(handle))
        self.type: ProgramType | int = ProgramType.from_number(lib.bpf_program__type(handle))
        self._function = ""
        self._uncounted = 0  # runs while the kernel's statistics were off
        self._closed = False
        self._pins = pins  # those of the fixture that it came from
        self._streams = Streams()
        LOADED.add(self)

    def loaded_for(self, function: str) -> None:
        """Stores the kernel function that it was loaded for, if that is not the one in its section."""
        self._function = function
        look_for_same_named(self._place)

    @property
    def _place(self) -> str:
        """Its section, with the function that it was loaded for."""
        return f"{kind(self.section)}/{self._function}" if self._function else self.section

    @property
    def autoattach(self) -> bool:
        """Whether `LoadedObject.attach` attaches it; libbpf decides that by the section."""
        return bool(lib.bpf_program__autoattach(self._open()))

    @property
    def attached(self) -> bool:
        """Whether a link of this program is open."""
        return any(link.attaches(self) for link in self._links)

    def targets(self, *, ended: bool = False) -> list[str]:
        """Returns where it is attached, as `attach` was told; empty texts stand for its section's target.

        With `ended` it returns where it was attached before.
        """
        links = (link for link in self._links if (link.ended(self) if ended else link.attaches(self)))
        return [", ".join(f"{name}={value!r}" for name, value in link.arguments.items()) for link in links]

    @property
    def fd(self) -> int:
        """The program's descriptor. Raises `ClosedError` after its object is closed."""
        return int(lib.bpf_program__fd(self._open()))

    @property
    def id(self) -> int:
        """The kernel's id of the program, as ``bpftool prog list`` shows it."""
        return int(self._info().id)

    @property
    def instructions(self) -> bytes:
        """The instructions as libbpf gave them to the kernel: relocated, and with all functions."""
        return instructions_of(self._open())

    @property
    def run_count(self) -> int:
        """How often it ran, while the kernel's statistics are on (``kernel.bpf_stats_enabled``)."""
        return int(self._info().run_cnt)

    @property
    def counted_runs(self) -> int:
        """How often it ran, with the runs by `run` that the kernel did not count."""
        return self.run_count + self._uncounted

    @property
    def verifier(self) -> VerifierStats:
        """What the verifier reported about it, see `VerifierStats`."""
        if self._stats is not None:
            return self._stats
        said, jited, translated = self.figures()
        depths = said.stack_depths
        return VerifierStats(
            said.instructions or int(self._info().verified_insns) or None,
            self._log,
            said.total_states,
            said.peak_states,
            said.max_states_per_insn,
            said.mark_read,
            said.time_us,
            None if depths is None else dict(zip(self._function_names(len(depths)), depths, strict=True)),
            said.stack_together,
            jited,
            translated,
            self._walk,
        )

    def figures(self) -> tuple[Figures, int | None, int | None]:
        """Returns what `verifier` tells as numbers alone, and the sizes of machine code and program."""
        if self._stats is not None:
            return read_figures(self._stats.log), self._stats.jited_size, self._stats.translated_size
        info = self._info()
        sizes = int(info.jited_prog_len) or None, int(info.xlated_prog_len) or None
        return read_figures(self._log), *sizes

    def _function_names(self, count: int) -> Sequence[str]:
        """Returns the names of the first `count` functions; ``func#1``, as the kernel does, where unknown."""
        try:
            records = function_types(self.fd)
        except OSError:
            records = []
        types = self._codecs.btf if self._codecs else None
        names: dict[str, None] = {}
        for number in range(count):
            name = types.type(records[number]).name if types and number < len(records) else ""
            name = name or (self.name if number == 0 else f"func#{number}")
            names[name if name not in names else f"{name} (func#{number})"] = None
        return list(names)

    def _walk(self) -> tuple[str, Walk]:
        self._open()
        if self._walked is None:
            self._walked = self._load_again() if self._load_again else (self._log, Walk(0))
        return self._walked

    def verified_as(self, stats: VerifierStats, walk: Callable[[], tuple[str, Walk]]) -> None:
        """Shows `stats`, those of the plain program, because this program also counts its lines.

        `walk` loads the plain program once more.
        """
        self._load_again, self._stats = walk, replace(stats, again=self._walk)

    @property
    def stdout(self) -> str:
        """All text that it wrote with ``bpf_stream_printk(BPF_STDOUT, …)``.

        Raises `UnsupportedError` before Linux 6.17.
        """
        return self._streams.read("stdout", self.fd, str(self))

    @property
    def stderr(self) -> str:
        """All text that the program, or the kernel about the program, wrote to its stderr; see `stdout`."""
        return self._streams.read("stderr", self.fd, str(self))

    def attach(self, **target: Any) -> Link:
        """Attaches it, by default to its section's target. See `attach_program` for the targets.

        Raises `AttachError` with errno if the kernel refuses, and `ClosedError` after its object is closed.
        """
        link = attach_program(self._open(), str(self), self._place, self.type, target)
        link.belong_to(self.fd, self._pins, self)
        link.arguments = target
        self._links.append(link)
        return link

    def run(
        self, data: Any = b"", ctx: Any = None, repeat: int = 1, cpu: int | None = None, *, live: bool = False
    ) -> RunResult:
        """Runs it without an event, on a packet or a context: ``BPF_PROG_TEST_RUN`` (Linux 4.12).

        `data` is bytes, or anything that `bytes()` takes, a Scapy packet for example. `ctx` is the context:
        a mapping of its fields (``{"mark": 7}`` of a ``__sk_buff``; the others are zero), the struct that the
        program's parameter points to, 64-bit numbers for a raw tracepoint, or bytes. `repeat` is how often
        the kernel runs it, at least once; `RunResult.duration_ns` is the mean time. `cpu` is the CPU that it
        runs on. With `live`, the kernel sends XDP's packets to where the verdict says (Linux 5.18, commit
        b530e9e1063e).

        Minimum kernels: Linux 5.15 for an XDP context, 5.13 for sk_lookup, 5.14 for syscall programs, 5.10
        for raw tracepoints. Raises `UnsupportedError` if the kernel can't run this type that way,
        `MapTypeError` for a packet or context of another kind, `MapValueError` for a field that the context
        does not have, and `LoadError` for other refusals.
        """
        self._check_traced()
        codec = context_codec(self.type, self.name, self._codecs)
        returns = return_codec(self.name, self._codecs)
        program = Runnable(self.fd, self.type, codec, returns, str(self))
        if not isinstance(data, str | int):  # run_program() refuses these
            data = bytes(data)  # the caller may change its own later
        if repeat <= 1 or live or is_emulated():
            result = run_program(program, data, ctx, repeat, cpu, live=live)
        else:
            result = self._run_uncounted(
                lambda: run_program(program, data, ctx, repeat, cpu, live=live), repeat
            )
        self._runs.append((time.time(), data, result))
        return result

    def _check_traced(self) -> None:
        if self.type is ProgramType.TRACING:
            check_traced(self._place, str(self), attached=self.attached)

    def _run_uncounted(self, run: Callable[[], RunResult], times: int) -> RunResult:
        """Runs it without the kernel's statistics, which would make each run look slower."""
        before = self.run_count
        with STATISTICS.paused():
            result = run()
        self._uncounted += times - (self.run_count - before)  # another process may have kept them on
        return result

    def run_pcap(
        self,
        path: str | os.PathLike[str],
        ctx: Any = None,
        cpu: int | None = None,
        *,
        to: str | os.PathLike[str] | None = None,
    ) -> list[RunResult]:
        """Runs it once on each packet of a capture, in order, as `run` does; returns the results.

        `path` is a file of tcpdump or Wireshark, in the format of libpcap, of whole Ethernet frames. It is
        read whole. `to` is the capture to write: what the program made of each packet, at the same place and
        with the same time, whatever its verdict is.

        Raises OSError if a file can't be read or written, `TriggerError` if `path` is no such capture, and
        what `run` raises. Source: pcap-savefile(5).
        """
        frames = read_pcap(path)
        results = [self.run(frame.data, ctx, cpu=cpu) for frame in frames]
        if to is not None:
            made = zip(results, frames, strict=True)
            write_pcap(to, (Frame(bytes(result.data), frame.time) for result, frame in made))
        return results

    @property
    def runs(self) -> Sequence[tuple[float, bytes, RunResult]]:
        """The last runs by `run`, at most 100: when (seconds since 1970), the packet, and the result."""
        return self._runs

    def __repr__(self) -> str:
        return f"<program {self.name!r} ({self.section})>"

    def __str__(self) -> str:
        return f"program {self.name!r} ({self.section})"

    def invalidate(self) -> None:
        """Makes each later use raise `ClosedError`; called when its object is closed."""
        self._closed = True

    def _info(self) -> Any:
        info = ffi.new("struct bpf_prog_info *")
        size = ffi.new("uint32_t *", ffi.sizeof("struct bpf_prog_info"))
        check(
            lib.bpf_obj_get_info_by_fd(self.fd, info, size),
            LoadError,
            "cannot read the info of",
            on=str(self),
        )
        return info

    def _open(self) -> Any:
        if self._closed:
            raise ClosedError("cannot use", on=str(self), why="its object is closed")
        return self._handle
