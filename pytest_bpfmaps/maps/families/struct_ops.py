"""struct_ops: programs that are the functions of a kernel's own struct."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from pytest_bpfmaps.btf import Codecs, Record
from pytest_bpfmaps.btf.enumerator import Enumerator
from pytest_bpfmaps.errors import UnsupportedError
from pytest_bpfmaps.kernel.bpf_types import MapType
from pytest_bpfmaps.kernel.btf import vmlinux_codecs
from pytest_bpfmaps.maps.base import Map
from pytest_bpfmaps.maps.info import MapInfo


class StructOpsState(Enumerator):
    """``enum bpf_struct_ops_state``."""

    INIT = 0
    INUSE = 1
    TOBEFREE = 2
    READY = 3


class StructOpsMap(Map, types=(MapType.STRUCT_OPS,)):
    """``BPF_MAP_TYPE_STRUCT_OPS``: Linux 5.6, commit 85d33df357b6.

    `LoadedObject.attach` registers it, and closing the link unregisters it. Its only element is the kernel's
    struct ``bpf_struct_ops_NAME``: `state`, a reference count, and in its field ``data`` the struct itself,
    with a program's id for each function. The element is zero until it is registered.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._typed = False
        self._register: Callable[[], Any] | None = None

    def declared_by(self, register: Callable[[], Any]) -> None:
        """Sets the function that registers the map for the object that declares it."""
        self._register = register

    def attach(self) -> Any:
        """Registers only this map, and returns its link; `LoadedObject.attach` registers all maps.

        Raises `AttachError` with errno, and `UnsupportedError` for a map that no loaded object here declares.
        """
        if self._register is None:
            raise UnsupportedError(
                "cannot register",
                on=str(self),
                why="it was opened by its id or a pin, but libbpf only registers a map of an object",
                fix="load the object here: bpf.load(…).maps.NAME.attach()",
                errno=errno.EOPNOTSUPP,
            )
        return self._register()

    @property
    def state(self) -> StructOpsState:
        """Its state: ``INIT``, ``INUSE``, ``TOBEFREE`` (unregistered, but still in use) or ``READY``."""
        common = self.value["common"] if "common" in self.value.__codec__.by_name else self.value
        return StructOpsState(common["state"])

    @property
    def value(self) -> Record:
        """The kernel's struct as a record. Raises `UnsupportedError` for a struct of a kernel module."""
        value = self.lookup_elem(0)
        if isinstance(value, Record):
            return value
        raise UnsupportedError(
            "cannot decode",
            on=str(self),
            why="the kernel's own BTF (/sys/kernel/btf/vmlinux) lacks its struct",
        )

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """Returns the element; `key` is 0."""
        self._take_kernel_type()
        return super().lookup_elem(key, flags)

    __getitem__ = lookup_elem

    def _take_kernel_type(self) -> None:
        """Looks up the value's type in the kernel's BTF, once; that BTF is large, so this is done late."""
        if self._typed or not self._info.btf_vmlinux_value_type_id:
            return
        codec = vmlinux_codecs().get(self._info.btf_vmlinux_value_type_id)
        if codec.size == self.value_size:
            self._value = codec
        self._typed = True
