"""Global variables of a program: ``const volatile``, ``.data``, ``.bss``, as attributes and items.

Before the load their bytes are in libbpf's memory, afterwards in maps that this process shares with the
kernel, so that reading and writing is plain memory access and no update of a program is overwritten.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .btf import Codec, Codecs, Kind
from .errors import ClosedError, MapError, NameLookupError, closest
from .libbpf import ffi, lib
from .libbpf.calls import reason

_READ_ONLY = (".rodata", ".kconfig")


class Section:
    """The bytes of one data section; `name` is the ELF section's, ``.bss`` for example."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle  # struct bpf_map *
        self._shared: mmap.mmap | None = None
        self.loaded = False

    @property
    def read_only(self) -> bool:
        """Whether nobody may write it once it is loaded."""
        return self.name.startswith(_READ_ONLY)

    def _share(self) -> mmap.mmap:
        """Maps the loaded section into this process (``BPF_F_MMAPABLE``, Linux 5.5, commit fc9702273e2e)."""
        size = -(-lib.bpf_map__value_size(self._handle) // mmap.PAGESIZE) * mmap.PAGESIZE
        access = mmap.PROT_READ if self.read_only else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            return mmap.mmap(lib.bpf_map__fd(self._handle), size, mmap.MAP_SHARED, access)
        except OSError as e:
            raise MapError(
                "cannot map the variables of",
                on=f"section {self.name}",
                why=reason(e.errno or 0),
                errno=e.errno,
            ) from e

    def memory(self) -> Any:
        """A buffer over the section's bytes."""
        if self.loaded:
            if self._shared is None:
                self._shared = self._share()
            return self._shared
        size = ffi.new("size_t *")
        address = lib.bpf_map__initial_value(self._handle, size)
        if address == ffi.NULL:
            why = "this kernel has no use for them, or the section is not loaded"
            raise MapError("cannot reach the variables of", on=f"section {self.name}", why=why)
        return ffi.buffer(address, size[0])

    def close(self) -> None:
        """Unmaps it. Safe to call again."""
        if self._shared is not None:
            self._shared.close()


@dataclass(frozen=True, slots=True)
class _Variable:
    section: Section
    offset: int
    codec: Codec


class Globals:
    """The object's global variables; ``g.x``, ``g["x"]``, ``g.x = 3``, iterable by name."""

    def __init__(self, on: str, sections: list[Section], codecs: Codecs | None) -> None:
        object.__setattr__(self, "_on", on)
        object.__setattr__(self, "_state", "opened")
        object.__setattr__(self, "_sections", sections)
        object.__setattr__(self, "_variables", _find_variables(sections, codecs) if codecs else {})

    def __getitem__(self, name: str) -> Any:
        variable = self._find(name, "read")
        return variable.codec.decode(bytes(variable.section.memory()[variable.offset : _end(variable)]))

    def __setitem__(self, name: str, value: Any) -> None:
        variable = self._find(name, "set")
        if self._state == "loaded" and variable.section.read_only:
            raise MapError(
                f"cannot set {name!r}",
                on=f"of {self._on}",
                why=f"it is in {variable.section.name}, which the kernel froze when the object was loaded",
                fix=f"set it before: bpf.load(…, globals={{{name!r}: {value!r}}})",
                errno=errno.EPERM,
            )
        raw = variable.codec.encode(value, f"global {name!r}")
        variable.section.memory()[variable.offset : _end(variable)] = raw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._variables]

    def __repr__(self) -> str:
        return f"<globals of {self._on}: {', '.join(self._variables) or 'none'}>"

    def _find(self, name: str, verb: str) -> _Variable:
        if self._state == "closed":
            raise ClosedError(f"cannot {verb} {name!r}", on=f"of {self._on}", why="the object is closed")
        found: _Variable | None = self._variables.get(name)
        if found is None:
            raise NameLookupError(
                f"no global variable {name!r}", on=f"in {self._on}", fix=closest(name, self._variables)
            )
        return found

    def _enter(self, state: str) -> None:
        """Follows the object's phase: ``opened``, ``loaded``, ``closed``."""
        object.__setattr__(self, "_state", state)
        for section in self._sections:
            section.loaded = state == "loaded"
            if state == "closed":
                section.close()


def _end(variable: _Variable) -> int:
    return variable.offset + variable.codec.size


def _find_variables(sections: list[Section], codecs: Codecs) -> dict[str, _Variable]:
    by_name = {t.name: t for t in codecs.btf if t.kind is Kind.DATASEC}
    made = {}
    for section in sections:
        datasec = by_name.get(section.name)
        for v in datasec.variables() if datasec else ():
            made[v.name] = _Variable(section, v.offset, codecs.get(v.type_id))
    return made
