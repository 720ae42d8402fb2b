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

    `LoadedObject.attach` registers it, closing the link takes it back. Its only element is the kernel's
    struct ``bpf_struct_ops_NAME``: `state`, a reference count and, in its field ``data``, the struct itself
    with a program's id for each function. It is zero until it is registered.
    """

    def __init__(self, fd: int, info: MapInfo, codecs: Codecs | None, **options: Any) -> None:
        super().__init__(fd, info, codecs, **options)
        self._typed = False
        self._register: Callable[[], Any] | None = None

    def declared_by(self, register: Callable[[], Any]) -> None:
        """Takes what registers it for the object that declares it."""
        self._register = register

    def attach(self) -> Any:
        """Registers this map alone, and returns its link; `LoadedObject.attach` takes all of the object.

        Raises `AttachError` with errno, and `UnsupportedError` for a map that no object at hand declares.
        """
        if self._register is None:
            raise UnsupportedError(
                "cannot register",
                on=str(self),
                why="it was found by its id or a pin, and libbpf registers a map of an object",
                fix="load the object here: bpf.load(…).maps.NAME.attach()",
                errno=errno.EOPNOTSUPP,
            )
        return self._register()

    @property
    def state(self) -> StructOpsState:
        """Whether it is registered: ``INIT``, ``INUSE``, ``TOBEFREE`` (somebody uses it still), ``READY``."""
        common = self.value["common"] if "common" in self.value.__codec__.by_name else self.value
        return StructOpsState(common["state"])

    @property
    def value(self) -> Record:
        """What the kernel has, as a record. Raises `UnsupportedError` for a struct of a kernel module."""
        value = self.lookup_elem(0)
        if isinstance(value, Record):
            return value
        raise UnsupportedError(
            "cannot decode",
            on=str(self),
            why="the kernel's own BTF (/sys/kernel/btf/vmlinux) lacks its struct",
        )

    def lookup_elem(self, key: Any, flags: int = 0) -> Any:
        """The element; `key` is 0."""
        self._take_kernel_type()
        return super().lookup_elem(key, flags)

    __getitem__ = lookup_elem

    def _take_kernel_type(self) -> None:
        """The value's type is one of the kernel's, whose BTF is large: it is looked at when it is needed."""
        if self._typed or not self._info.btf_vmlinux_value_type_id:
            return
        codec = vmlinux_codecs().get(self._info.btf_vmlinux_value_type_id)
        if codec.size == self.value_size:
            self._value = codec
        self._typed = True
