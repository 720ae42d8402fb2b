"""The bytes of the data sections of a program: ``.data``, ``.bss``, ``.rodata``.

Before the load they are in libbpf's memory. After the load they are in maps that this process shares with the
kernel. A section that can't be shared is read and written as a whole.
"""

from __future__ import annotations

import errno
import mmap
from typing import Any

from pytest_bpfmaps.btf.special_fields import LOCKS
from pytest_bpfmaps.errors import ENOTSUPP, MapError, UnsupportedError
from pytest_bpfmaps.kernel.map_flags import BPF_F_LOCK
from pytest_bpfmaps.libbpf import check, ffi, lib
from pytest_bpfmaps.libbpf.calls import reason

_READ_ONLY = (".rodata", ".kconfig")
_FIRST = ffi.new("uint32_t *", 0)  # a section is an array of one element


class DataSection:
    """The bytes of one data section; `name` is the name of the ELF section, such as ``.bss``.

    `kept` has the kernel's own types in it, such as ``bpf_spin_lock``. `hidden` has the names of variables of
    such a type. `parts` has the names of those of which clang keeps only a part, and the sizes of part and
    whole in bytes.
    """

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self.kept: set[str] = set()
        self.hidden: set[str] = set()
        self.parts: dict[str, tuple[int, int]] = {}
        self._handle = handle  # struct bpf_map *
        self._shared: mmap.mmap | None = None
        self._mappable = True
        self.loaded = False

    @property
    def read_only(self) -> bool:
        """Whether the kernel refuses writes to it after the load."""
        return self.name.startswith(_READ_ONLY)

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes from `start` to `end`."""
        memory = self._memory()
        return bytes((self._lookup() if memory is None else memory)[start:end])

    def write(self, start: int, raw: bytes) -> None:
        """Writes bytes at `start`.

        If the section can't be mapped, all of it is read and written, and what a program changes in between
        is lost. If the section has a ``bpf_spin_lock``, the kernel holds it during each of the two steps.
        """
        memory = self._memory()
        if memory is not None:
            memory[start : start + len(raw)] = raw
            return
        holds = self.kept - LOCKS
        if holds:
            raise UnsupportedError(
                "cannot set a variable",
                on=f"of section {self.name}",
                why="the kernel writes the whole section, and frees what is in its "
                + ", ".join(sorted(holds)),
                fix="set it before the load: bpf.load(…, globals={…}), or give it a section of its own",
                errno=errno.EOPNOTSUPP,
            )
        value = bytearray(self._lookup())
        value[start : start + len(raw)] = raw
        result = lib.bpf_map_update_elem(self._fd, _FIRST, ffi.from_buffer(value), self._flags)
        check(result, MapError, "cannot set the variables of", on=f"section {self.name}")

    @property
    def _fd(self) -> int:
        return int(lib.bpf_map__fd(self._handle))

    @property
    def _flags(self) -> int:
        return BPF_F_LOCK if "bpf_spin_lock" in self.kept else 0

    def _lookup(self) -> bytearray:
        value = bytearray(lib.bpf_map__value_size(self._handle))
        result = lib.bpf_map_lookup_elem_flags(self._fd, _FIRST, ffi.from_buffer(value), self._flags)
        check(result, MapError, "cannot read the variables of", on=f"section {self.name}")
        return value

    def _memory(self) -> Any:
        """Returns a buffer over the section's bytes; None if the kernel does not allow to map them."""
        if not self.loaded:
            return self._initial()
        if self._shared is None and self._mappable:
            self._shared = self._share()
        return self._shared

    def _share(self) -> mmap.mmap | None:
        """Maps the loaded section into this process (``BPF_F_MMAPABLE``, Linux 5.5, commit fc9702273e2e).

        Returns None if that is not possible. libbpf does not make the section mappable if all its variables
        are static, for example ``bpf_printk`` formats. The kernel refuses it for a section with locks, lists
        or kptrs.
        """
        size = -(-lib.bpf_map__value_size(self._handle) // mmap.PAGESIZE) * mmap.PAGESIZE
        access = mmap.PROT_READ if self.read_only else mmap.PROT_READ | mmap.PROT_WRITE
        try:
            return mmap.mmap(self._fd, size, mmap.MAP_SHARED, access)
        except OSError as e:
            if e.errno not in (errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP):
                raise MapError(
                    "cannot map the variables of",
                    on=f"section {self.name}",
                    why=reason(e.errno or 0),
                    errno=e.errno,
                ) from e
        self._mappable = False
        return None

    def _initial(self) -> Any:
        size = ffi.new("size_t *")
        address = lib.bpf_map__initial_value(self._handle, size)
        if address == ffi.NULL:
            why = "this kernel does not use them, or the section is not loaded"
            raise MapError("cannot reach the variables of", on=f"section {self.name}", why=why)
        return ffi.buffer(address, size[0])

    def close(self) -> None:
        """Unmaps the section. Safe to call again."""
        if self._shared is not None:
            self._shared.close()
