"""Stack traces: ``BPF_MAP_TYPE_STACK_TRACE``, which ``bpf_get_stackid`` fills."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from pytest_bpfmaps.errors import BpfError, MapKeyError, UnsupportedError, strerror
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.kallsyms import FunctionSymbol, kernel_symbols
from pytest_bpfmaps.kernel.process_symbols import HasPid, ProcessSymbols
from pytest_bpfmaps.maps.sparse import SparseMap

Process = int | HasPid | ProcessSymbols
"""A process whose addresses are named: its id, an object with a `pid`, or its `ProcessSymbols`."""

_F_STACK_BUILD_ID = 1 << 5
_BUILD_ID = struct.Struct("=i20sQ")  # struct bpf_stack_build_id
_VALID, _IP = 1, 2
_KERNEL_HALF = 1 << 63
_ERRORS = range((1 << 32) - 4095, 1 << 32)


class _Functions:
    """The functions at the addresses of a stack; all are looked up when the first one is needed."""

    def __init__(self, places: Sequence[tuple[int, str]], process: ProcessSymbols | None) -> None:
        self._places = places
        self._process = process

    @cached_property
    def found(self) -> list[FunctionSymbol | UnsupportedError | None]:
        """The function at each place, or the error that says why it is unknown."""
        found: list[FunctionSymbol | UnsupportedError | None] = [None] * len(self._places)
        in_kernel = [i for i, place in enumerate(self._places) if _is_kernels(*place)]
        try:
            names = kernel_symbols().find(self._called_from(i) for i in in_kernel) if in_kernel else []
            for i, symbol in zip(in_kernel, names, strict=True):
                found[i] = symbol
        except UnsupportedError as e:
            for i in in_kernel:
                found[i] = e
        if self._process is not None:
            for i, place in enumerate(self._places):
                if not _is_kernels(*place):
                    found[i] = self._find_user(self._process, i)
        return found

    def nowhere(self, index: int) -> str:
        """Returns why a place of a process is in no file; empty if that is unknown."""
        address, build_id = self._places[index]
        if self._process is None or _is_kernels(address, build_id):
            return ""
        if build_id:
            return "the process has no such file mapped"
        if self._process.mapping(self._called_from(index)) is None:
            return "no code is mapped there"  # without frame pointers, any word may be taken for an address
        return "in memory of no file"

    def _find_user(self, process: ProcessSymbols, index: int) -> FunctionSymbol | None:
        build_id = self._places[index][1]
        if build_id:
            return process.find_in_file(build_id, self._called_from(index))
        return process.find(self._called_from(index))

    def _called_from(self, index: int) -> int:
        """Returns an address that is certainly in the calling function.

        A place other than the innermost is a return address. If a function ends with a call, the return
        address is already in the next function.
        """
        return self._places[index][0] - (1 if index else 0)


def _is_kernels(address: int, build_id: str) -> bool:
    """Returns whether an address belongs to the kernel: the upper half of the addresses does (not on
    s390x).
    """
    return not build_id and address >= _KERNEL_HALF


class Frame:
    """One function of a stack trace.

    `address` is the address in it that the CPU had reached, or will return to. For a frame with a `build_id`
    (hexadecimal) it is the offset in that file.
    """

    __slots__ = ("_functions", "_index", "address", "build_id")

    def __init__(self, functions: _Functions, index: int, address: int, build_id: str = "") -> None:
        self._functions = functions
        self._index = index
        self.address = address
        self.build_id = build_id

    @property
    def in_kernel(self) -> bool:
        """Whether it belongs to the kernel: the upper half of the addresses does (not on s390x)."""
        return _is_kernels(self.address, self.build_id)

    @property
    def symbol(self) -> str | None:
        """The function's name; None if there is no symbol for the address.

        Raises `UnsupportedError` if the kernel hides its symbols.
        """
        found = self._found
        return found.names[0] if found and found.names else None

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the function, `symbol` first: ``('open', 'open64', '__open')``."""
        found = self._found
        return found.names if found else ()

    @property
    def offset(self) -> int | None:
        """The offset in the function, in bytes; without a symbol, the offset in the file.

        None if the address is in no file.
        """
        found = self._found
        return self.address - found.start if found else None

    @property
    def file(self) -> str | None:
        """The origin of the function: ``vmlinux``, a module, ``bpf``, or the path of a program or library.

        It is known without a symbol, too. None if the address is in no file, or is not code.
        """
        found = self._found
        return found.file if found else None

    @property
    def _found(self) -> FunctionSymbol | None:
        found = self._functions.found[self._index]
        if isinstance(found, BpfError):
            raise found
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return (self.address, self.build_id) == (other.address, other.build_id)

    def __hash__(self) -> int:
        return hash((self.address, self.build_id))

    def __str__(self) -> str:
        found = self._functions.found[self._index]
        if isinstance(found, FunctionSymbol):
            distance = f"+{self.address - found.start:#x}"
            return f"{found.names[0]}{distance} ({found.file})" if found.names else f"{found.file}{distance}"
        where = f"{self.build_id}+" if self.build_id else ""
        why = found.why if isinstance(found, BpfError) else self._functions.nowhere(self._index)
        return f"{where}{self.address:#x}" + (f" ({why})" if why else "")

    def __repr__(self) -> str:
        return f"<{self}>"


class StackTrace(Sequence[Frame]):
    """The frames of a stack, innermost first. Names are looked up when they are first needed."""

    def __init__(self, places: Sequence[tuple[int, str]], process: ProcessSymbols | None) -> None:
        functions = _Functions(places, process)
        self._frames = tuple(Frame(functions, i, a, b) for i, (a, b) in enumerate(places))

    @property
    def symbols(self) -> list[str | None]:
        """The functions' names, innermost first."""
        return [f.symbol for f in self]

    @property
    def addresses(self) -> list[int]:
        """The frames' addresses, innermost first."""
        return [f.address for f in self]

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Frame]: ...
    def __getitem__(self, index: int | slice) -> Frame | Sequence[Frame]:
        return self._frames[index]

    def __len__(self) -> int:
        return len(self._frames)

    def __eq__(self, other: object) -> bool:
        return self._frames == other._frames if isinstance(other, StackTrace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._frames)

    def __str__(self) -> str:
        return "\n".join(f"#{i} {frame}" for i, frame in enumerate(self))

    def __repr__(self) -> str:
        return f"<stack trace: {' < '.join(map(str, self))}>"


class StackTraceMap(SparseMap, types=(MapType.STACK_TRACE,)):
    """``BPF_MAP_TYPE_STACK_TRACE`` (Linux 4.6, commit d5a3b1f69186).

    ``m[stack_id]`` gives a `StackTrace`. ``/proc/kallsyms`` names kernel addresses. The files that this
    process has mapped name user addresses; for another process call `user`.
    """

    def __getitem__(self, key: Any) -> StackTrace:
        return self.lookup_elem(key)  # type: ignore[no-any-return]

    def __contains__(self, key: Any) -> bool:
        try:
            return super().__contains__(key)
        except MapKeyError:  # the key is an error number, not an id
            return False

    def get(self, key: Any, default: Any = None) -> Any:
        """Returns the trace, or `default` if it is missing, or if `key` is an error number and not an id."""
        try:
            return super().get(key, default)
        except MapKeyError:
            return default

    def user(self, stack_id: int, process: Process) -> StackTrace:
        """Returns the trace of a stack of `process`.

        `process` is a process id, a `subprocess.Popen`, or a `ProcessSymbols`. Raises `UnsupportedError`
        (`ESRCH`) if the process has ended.
        """
        symbols = process if isinstance(process, ProcessSymbols) else ProcessSymbols(process)
        raw = self._find(self._encode_key(stack_id))
        if raw is None:
            self._refuse(errno.ENOENT, "look up", stack_id)
        return StackTrace(self._places(raw), symbols)

    def _encode_key(self, key: Any) -> bytes:
        if isinstance(key, int) and (key < 0 or key in _ERRORS):
            number = -key if key < 0 else (1 << 32) - key
            raise MapKeyError(
                f"no stack {key}",
                on=f"in {self}",
                why=f"it is an error that bpf_get_stackid() returned: {strerror(number)}",
                fix=_REMEDIES.get(number),
                errno=number,
            )
        return super()._encode_key(key)

    def _decode_value(self, raw: bytes | bytearray | memoryview) -> StackTrace:
        places = self._places(raw)
        in_user = any(build_id or address < _KERNEL_HALF for address, build_id in places)
        return StackTrace(places, ProcessSymbols() if in_user else None)

    def _places(self, raw: bytes | bytearray | memoryview) -> list[tuple[int, str]]:
        """Returns (address, build id or "") of each frame."""
        if self.flags & _F_STACK_BUILD_ID:
            return list(_build_id_places(raw))
        addresses = [a for (a,) in struct.iter_unpack("=Q", raw)]
        while addresses and not addresses[-1]:
            addresses.pop()
        return [(a, "") for a in addresses]


def _build_id_places(raw: bytes | bytearray | memoryview) -> Iterator[tuple[int, str]]:
    for status, build_id, offset in _BUILD_ID.iter_unpack(raw):
        if status == _VALID:
            yield offset, build_id.hex()
        elif status == _IP:  # the kernel could not read the process's mappings at that moment
            yield offset, ""


_REMEDIES = {
    errno.EEXIST: "make the map larger, or pass BPF_F_REUSE_STACKID: another stack has its place",
    errno.EFAULT: "filter kernel threads out: they have no user stack; for a kernel stack in a tracepoint of "
    "syscalls, take a kprobe or raw_tp/sys_enter: older kernels show none there",
    errno.ENOMEM: "make the map larger: it is full",
}
