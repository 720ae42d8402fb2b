"""Every exception that this package raises.

`BpfError` is the root. Below it is a class for each phase of a BPF object's life. Each class is also the
builtin that a Python programmer would catch: `OSError` with ``errno`` where the kernel refused, `KeyError`,
`TypeError`, `OverflowError`, `AssertionError`, `TimeoutError` …

A message has four parts: what was tried, on which object, why it failed, what to do. Its last line says
which entry of the manual has more.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar, NamedTuple

NONE = "there are none"
ENOTSUPP = 524
"""An error number that only the kernel defines. User space has no name for it."""


class Explanation(NamedTuple):
    """`why` something failed, and `fix`: what to do about it, where that is known."""

    why: str
    fix: str | None = None


_FREE = "free some space there, or name a folder of another disk"
_REMEDIES = {
    _errno.EMFILE: "this process has as many files open as it may: close what is no longer used, or raise "
    "the limit: ulimit -n 65536",
    _errno.ENFILE: "all processes together have as many files open as they may: end some, or raise the "
    "limit: sysctl fs.file-max",
    _errno.ENOSPC: _FREE,
    _errno.EDQUOT: "your quota is used up: free some space there, or name a folder of another disk",
    _errno.EROFS: "the file system is mounted read-only: remount it, or name a folder of another one",
    _errno.ENAMETOOLONG: "the path is longer than the file system takes: name a folder with a shorter one",
    _errno.EIO: "the disk fails: see the kernel's log, dmesg; or name a folder of another disk",
    _errno.ENOMEM: "the machine has no memory left: end other programs, or run fewer at once",
}
_ANYWHERE = frozenset({_errno.EMFILE, _errno.ENFILE})  # from bpf(2), the other numbers mean other things


def remedy(number: int | None, otherwise: str | None) -> str | None:
    """Returns what to do about a refused operation on a file, by its errno.

    `otherwise` is for numbers that have no remedy of their own, such as a refused permission.
    """
    return _REMEDIES.get(abs(number or 0), otherwise)


def remedy_in_cache(number: int | None, otherwise: str) -> str:
    """Returns what to do about a refused operation on a file of the cache.

    Where `remedy` advises another folder, the answer names the variable that sets the cache's folder.
    """
    found = remedy(number, None)
    return f"{found}: BPFMAPS_CACHE=FOLDER" if found and "folder" in found else found or otherwise


class BpfError(Exception):
    """Root of all errors of this package.

    - `what` was tried, `on` which object, `why` it failed, and what to do (`fix`).
    - `details` is longer text that belongs under the message: a compiler's diagnostics, a verifier's log, a
      console's last lines.
    - `errno` is the kernel's error number as a positive int, or None.
    - `address` is the name of its entry in the manual, or None. Tracebacks and pytest show it last.
    - `section` is the attach point, written as in ``SEC()``, of a program that could not be loaded or
      attached; None where there is none.
    """

    errno: int | None
    section: str | None = None
    default_errno: ClassVar[int | None] = None  # for our own refusals: the errno that the kernel would give

    def __init__(
        self,
        what: str,
        *,
        on: str | None = None,
        why: str | None = None,
        fix: str | None = None,
        details: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(what)
        self._notes: list[str] = []
        self.what = what
        self.on = on
        self.why = why
        self.fix = remedy(errno, fix) if errno is not None and abs(errno) in _ANYWHERE else fix
        self.details = details
        self.errno = abs(errno) if errno is not None else self.default_errno

    def __str__(self) -> str:
        head = self.what if self.on is None else f"{self.what} {self.on}"
        if self.why:
            head += f": {self.why}"
        lines = [head]
        if self.details:
            lines += [self.details.rstrip("\n")]
        if self.fix:
            lines += [f"  -> {self.fix}"]
        return shown_lines("\n".join(lines))

    @property
    def address(self) -> str | None:
        """The name of this error's entry in the manual: ``bpfmaps docs ADDRESS`` prints it."""
        from pytest_bpfmaps.manual.addresses import address

        return address(type(self), self.what)

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        # Python and pytest print these lines below the message; the address is the last one.
        return [*self._notes, *([f"  see: bpfmaps docs {self.address}"] if self.address else [])]

    def add_note(self, note: str, /) -> None:
        """Adds a line below the message, before the address."""
        self._notes.append(note)

    def full_text(self) -> str:
        """Returns the whole message as it is printed: with the notes and the address in the manual."""
        return shown_lines("\n".join([str(self), *self.__notes__]))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self._parts())

    def _parts(self) -> dict[str, object]:
        return {n: getattr(self, n) for n in ("on", "why", "fix", "details", "errno")}


def _rebuild(cls: type[BpfError], what: str, parts: dict[str, object]) -> BpfError:
    return cls(what, **parts)  # type: ignore[arg-type]


class CompileError(BpfError, RuntimeError):
    """clang is missing, or refused the source; `details` holds its diagnostics."""


class SourceNotFoundError(CompileError, FileNotFoundError):
    """There is no source of that name in the folders that are searched (`ENOENT`)."""

    default_errno = _errno.ENOENT


class LoadError(BpfError, OSError):
    """libbpf or the kernel refused to open or load an object."""


class PortabilityError(LoadError):
    """Code that works here, and that libbpf or another loader refuses (``--bpf-strict``, `bpf_portable`)."""

    default_errno = _errno.EINVAL


class PortabilityWarning(UserWarning):
    """Warns of code that works here, and that libbpf or the loader of production would refuse."""


class MapUseWarning(UserWarning):
    """Warns that a program uses a map in a way for which there is a better one (``--bpf-map-warnings``)."""


class UncheckedUpdateWarning(MapUseWarning):
    """Warns of an update whose return value the program does not check: it fails when the map is full."""


class LostAddWarning(MapUseWarning):
    """Warns of an addition that is not atomic, to a value that several CPUs share."""


class ValueSizeWarning(MapUseWarning):
    """Warns of a value that is used as if it were larger than the map declares."""


class SmallKeysWarning(MapUseWarning):
    """Warns of a hash map whose keys are small consecutive numbers: an array is better for these."""


class SharedCounterWarning(MapUseWarning):
    """Warns of a counter that all CPUs add to: a per-CPU map is better for it."""


class ReusedTypeWarning(UserWarning):
    """Warns that an object reuses a live map whose keys or values have other fields than it declares."""


class ContextTypeWarning(UserWarning):
    """Warns that a program declares the context of another type of program, and so reads other fields."""


class UnknownNameWarning(UserWarning):
    """Warns that a test compares a value with a text that is no name of its enum: they are never equal."""


class VerifierError(LoadError):
    """The kernel's verifier rejected a program; `log` is its whole log."""

    def __init__(self, what: str, *, log: str = "", **parts: object) -> None:
        super().__init__(what, **parts)  # type: ignore[arg-type]
        self.log = log

    def _parts(self) -> dict[str, object]:
        return {**super()._parts(), "log": self.log}


class LoaderError(BpfError, OSError):
    """A program that loads BPF programs itself could not be started, or did not do what was expected.

    `log` is the verifier's log from the output of that program; it is empty if the output has none.
    """

    def __init__(self, what: str, *, log: str = "", **parts: object) -> None:
        super().__init__(what, **parts)  # type: ignore[arg-type]
        self.log = log

    def _parts(self) -> dict[str, object]:
        return {**super()._parts(), "log": self.log}


class AttachError(BpfError, OSError):
    """A program could not be attached to its target, or could never run there."""


class TriggerError(BpfError, OSError):
    """A network namespace, interface, cgroup or process for a test could not be made, used or removed."""


class MapError(BpfError, OSError):
    """A map operation was refused."""


class MapKeyError(MapError, KeyError):
    """The key is not in the map (`ENOENT`)."""

    __str__ = BpfError.__str__  # KeyError would print the repr


class MapEmptyError(MapKeyError, IndexError):
    """There is nothing to take from a queue or stack (`ENOENT`)."""


class MapTypeError(MapError, TypeError):
    """A Python value has the wrong type for the map's C type."""

    default_errno = _errno.EINVAL


class MapValueError(MapError, ValueError):
    """A Python value has the right type, but the map's C type can't hold it."""

    default_errno = _errno.EINVAL


class MapOverflowError(MapValueError, OverflowError):
    """An integer is outside the range of its C type."""

    default_errno = _errno.ERANGE


class NameLookupError(BpfError, KeyError, AttributeError):
    """There is no map, program, variable or field of that name; the message has the closest names."""

    __str__ = BpfError.__str__


class NoValueError(BpfError, ValueError):
    """A field has no value: its record was sent without it, or the kernel does not give it back."""


class AmbiguousNameError(NameLookupError):
    """Several maps, variables or structs have that name; the message says how to name each."""


class UnsupportedError(BpfError, OSError):
    """The kernel, libbpf or this machine lacks a feature; the message names it and the way to get it."""


class CaptureTimeoutError(BpfError, AssertionError):
    """Events that a test expected did not come in time."""


class ExpectationError(BpfError, AssertionError):
    """The verifier, or an agent, did not do what the test expected; `log` is the verifier's whole log."""

    def __init__(self, what: str, *, log: str = "", **parts: object) -> None:
        super().__init__(what, **parts)  # type: ignore[arg-type]
        self.log = log

    def _parts(self) -> dict[str, object]:
        return {**super()._parts(), "log": self.log}


class VmError(BpfError, RuntimeError):
    """A virtual machine or a kernel for one is missing, could not be made, or refused a request."""


class VmBootError(VmError):
    """A virtual machine did not start. Another way to start it may work."""


class VmLostError(VmError, ConnectionError):
    """A virtual machine ended, or the connection to it broke, while it was in use."""


class VmTimeoutError(VmError, TimeoutError):
    """A virtual machine did not boot, or did not answer, in time."""


class CacheError(CompileError, VmError):
    """The cache folder, which keeps files between runs, can't be trusted."""


class ClosedError(BpfError, ValueError):
    """The object was used after it was closed."""


def strerror(number: int) -> str:
    """Returns ``EPERM: Operation not permitted`` for an errno, positive or negative."""
    number = abs(number)
    if number == ENOTSUPP:
        return "ENOTSUPP: Operation is not supported by this kernel"
    return f"{_errno.errorcode.get(number, f'errno {number}')}: {os.strerror(number)}"


def shown(name: str) -> str:
    """Returns a file's name for a message: as it is, or quoted where a terminal would not print it."""
    return name if name.isprintable() else repr(name)


def shown_lines(text: str) -> str:
    """Returns a text for a terminal: what another program wrote, or a name that came from a file.

    Lines and tabs stay. Any other character that is not printable becomes its escape sequence, ``\\x1b``.
    """
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in text)


def closest(name: str, known: Iterable[str]) -> str:
    """Returns a sentence for an error's `fix`: the known names that are closest to `name`."""
    names = sorted(set(known))
    if not names:
        return NONE
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"there are: {shown}"
