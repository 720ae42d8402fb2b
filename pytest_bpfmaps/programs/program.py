"""Programs of an object: before and after it is loaded."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from pytest_bpfmaps.attach.dispatch import attach_program
from pytest_bpfmaps.attach.links import Link
from pytest_bpfmaps.attach.module_functions import can_choose, choose, forget, too_new
from pytest_bpfmaps.attach.section_targets import kind, teach_unknown
from pytest_bpfmaps.attach.tracepoints import look_for_same_named
from pytest_bpfmaps.btf import Codecs
from pytest_bpfmaps.errors import ClosedError, LoadError, NameLookupError, closest
from pytest_bpfmaps.kernel.attach_names import explain_no_type
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.duplicate_symbols import explain_not_there, explain_untyped
from pytest_bpfmaps.kernel.program_code import function_types
from pytest_bpfmaps.kernel.run_counts import LOADED
from pytest_bpfmaps.libbpf import check, ffi, lib, to_str
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.programs.context import context_codec, return_codec
from pytest_bpfmaps.programs.prog_run import Runnable, RunResult, run_program
from pytest_bpfmaps.programs.streams import Streams
from pytest_bpfmaps.programs.verifier_stats import VerifierStats
from pytest_bpfmaps.triggers.pcap import Frame, read_pcap, write_pcap
from pytest_bpfmaps.verifier.figures import Figures, read_figures
from pytest_bpfmaps.verifier.walk import Walk

_RUNS = 100  # that a failing test can show
_SETTINGS = ("type", "expected_attach_type", "flags", "ifindex", "autoload")


@cache
def attach_types() -> list[str]:
    """Returns libbpf's names of ``enum bpf_attach_type``; the index is the number."""
    names: list[str] = []
    while name := to_str(lib.libbpf_bpf_attach_type_str(len(names))):
        names.append(name)
    return names


def instructions_of(handle: Any) -> bytes:
    """Returns the instructions of libbpf's program, as they are at this time."""
    size = 8 * lib.bpf_program__insn_cnt(handle)
    return bytes(ffi.buffer(ffi.cast("char *", lib.bpf_program__insns(handle)), size))


class ProgramSpec:
    """A program of an object that is opened, but not loaded yet."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        forget(handle)  # what was chosen for an earlier program at this address
        self._ifindex = 0
        self.changed: dict[str, int] = {}  # what was set, by libbpf's names
        self.target: tuple[str, Program | None] | None = None
        self.name = to_str(lib.bpf_program__name(handle))
        self.section = to_str(lib.bpf_program__section_name(handle))
        self.taught_section = teach_unknown(handle) or too_new(self.section)

    @property
    def type(self) -> ProgramType | int:
        """Its ``enum bpf_prog_type``, from the section's name; can be set, by number or name (``"xdp"``)."""
        return ProgramType.from_number(lib.bpf_program__type(self.handle))

    @type.setter
    def type(self, wanted: ProgramType | int | str) -> None:
        number = ProgramType.from_name(wanted) if isinstance(wanted, str) else wanted
        if number is None:
            known = map(str, ProgramType)
            raise NameLookupError("no program type", on=repr(wanted), fix=closest(str(wanted), known))
        self._set("type", number)

    @property
    def expected_attach_type(self) -> str | int:
        """Its ``enum bpf_attach_type`` as libbpf names it, ``"xdp_devmap"``; can be set, also by number."""
        number = int(lib.bpf_program__expected_attach_type(self.handle))
        return to_str(lib.libbpf_bpf_attach_type_str(number)) or number

    @expected_attach_type.setter
    def expected_attach_type(self, wanted: str | int) -> None:
        if isinstance(wanted, str):
            names = attach_types()
            name = wanted.lower().removeprefix("bpf_")
            if name not in names:
                raise NameLookupError("no attach type", on=repr(wanted), fix=closest(name, names))
            wanted = names.index(name)
        self._set("expected_attach_type", wanted)

    @property
    def flags(self) -> int:
        """The flags ``BPF_F_*`` of the load, such as ``BPF_F_SLEEPABLE``; can be set."""
        return int(lib.bpf_program__flags(self.handle))

    @flags.setter
    def flags(self, flags: int) -> None:
        self._set("flags", flags)

    @property
    def ifindex(self) -> int:
        """The index of the interface that it is loaded for; 0 for any; can be set.

        The interface is in this thread's network namespace. With ``BPF_F_XDP_DEV_BOUND_ONLY`` (64) in `flags`
        the program runs on the CPU, and may call the metadata kfuncs of that interface's driver (Linux 6.3).
        Without that flag it is for the interface's hardware.
        """
        return self._ifindex

    @ifindex.setter
    def ifindex(self, index: int) -> None:
        lib.bpf_program__set_ifindex(self.handle, index)
        self._ifindex = index

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets `type`, `expected_attach_type`, `flags`, `ifindex`, `autoload` by name.

        Raises `NameLookupError` for another name, and `LoadError` for a value that libbpf refuses.
        """
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise NameLookupError("no setting", on=f"{name!r} of {self}", fix=closest(name, _SETTINGS))
            setattr(self, name, value)

    def _set(self, name: str, value: int) -> None:
        """Calls libbpf's setter of that name."""
        what, on = f"cannot set {name}={value}", f"of {self}"
        check(getattr(lib, f"bpf_program__set_{name}")(self.handle, value), LoadError, what, on=on)
        self.changed[name] = value

    def set_as(self, other: ProgramSpec) -> None:
        """Copies all settings that were changed in `other`, a program of the same source."""
        for name, value in other.changed.items():
            self._set(name, value)
        if other.ifindex:
            self.ifindex = other.ifindex
        if other.target is not None:
            self.set_attach_target(*other.target)

    @property
    def autoload(self) -> bool:
        """Whether loading the object loads this program."""
        return bool(lib.bpf_program__autoload(self.handle))

    @autoload.setter
    def autoload(self, wanted: bool) -> None:
        self._set("autoload", wanted)

    def set_attach_target(self, function: str, target: Program | None = None) -> None:
        """Sets the function that it is loaded for: a kernel function, or one of the loaded program `target`.

        This is for fentry, fexit, fmod_ret, LSM, tp_btf and freplace. freplace needs it, because its section
        can't name the program. SEC("fentry"), SEC("fexit") and SEC("fmod_ret") take ``MODULE:FUNCTION``, too,
        and ``vmlinux:FUNCTION`` for a function of the kernel itself. Raises `LoadError` with errno.
        """
        what, on = f"cannot set the target {function!r} of", str(self)
        forget(self.handle)
        if ":" in function and target is None:
            self._choose(function, what, on)
            return
        fd = target.fd if target else 0
        result = lib.bpf_program__set_attach_target(self.handle, fd, function.encode())
        if result in (-errno.ESRCH, -errno.ENOENT) and target is None:
            why, fix = explain_untyped(function) or explain_no_type(kind(self.section), function)
            raise LoadError(what, on=on, why=why, fix=fix, errno=-result)
        check(result, LoadError, what, on=on)
        self.target = function, target

    def _choose(self, function: str, what: str, on: str) -> None:
        if not can_choose(self.section):
            why = f'libbpf looks up the function of SEC("{self.section}") by its name alone'
            fix = f'write SEC("{kind(self.section)}"), without a target'
            raise LoadError(what, on=on, why=why, fix=fix, errno=errno.EINVAL)
        if not choose(self.handle, function):
            absent = explain_not_there(function)
            raise LoadError(what, on=on, why=absent.why, fix=absent.fix, errno=errno.ESRCH)
        self.target = function, None

    def __repr__(self) -> str:
        return f"<program {self.name!r} ({self.section})>"

    def __str__(self) -> str:
        return f"program {self.name!r} ({self.section})"


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
        codec = context_codec(self.type, self.name, self._codecs)
        returns = return_codec(self.name, self._codecs)
        program = Runnable(self.fd, self.type, codec, returns, str(self))
        if not isinstance(data, str | int):  # run_program() refuses these
            data = bytes(data)  # the caller may change its own later
        result = run_program(program, data, ctx, repeat, cpu, live=live)
        self._runs.append((time.time(), data, result))
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
