"""Names of the kernel's BPF types, as <linux/bpf.h> numbers them."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from pytest_bpfmaps.btf.enumerator import warn_of_name


class KernelEnum(IntEnum):
    """An enum of the kernel. `str()` gives the kernel's name in lower case without prefix.

    A member equals every text that `from_name` takes for it. A text that is not a name of the enum is
    unequal, and gives an `UnknownNameWarning`.
    """

    def __str__(self) -> str:
        return self.name.lower()

    def __eq__(self, other: object) -> bool:
        return self._is_called(other) if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self._is_called(other) if isinstance(other, str) else int.__ne__(self, other)

    __hash__ = int.__hash__

    def _is_called(self, name: str) -> bool:
        member = self.from_name(name)
        if member is None:
            warn_of_name(name, type(self).__name__, map(str, type(self)))
        return member is self

    @classmethod
    def from_number(cls, number: int) -> Self | int:
        """Returns the member, or the number itself if it is newer than this list."""
        try:
            return cls(number)
        except ValueError:
            return number

    @classmethod
    def from_name(cls, name: str) -> Self | None:
        """Returns the member of that name, in upper or lower case, with or without prefix; else None."""
        name = name.upper().removeprefix("BPF_MAP_TYPE_").removeprefix("BPF_PROG_TYPE_")
        return cls.__members__.get(name)


class MapType(KernelEnum):
    """``enum bpf_map_type``."""

    UNSPEC = 0
    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33
    INSN_ARRAY = 34
    RHASH = 35


OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
"""Maps whose values are maps."""


class ProgramType(KernelEnum):
    """``enum bpf_prog_type``."""

    UNSPEC = 0
    SOCKET_FILTER = 1
    KPROBE = 2
    SCHED_CLS = 3
    SCHED_ACT = 4
    TRACEPOINT = 5
    XDP = 6
    PERF_EVENT = 7
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    LWT_IN = 10
    LWT_OUT = 11
    LWT_XMIT = 12
    SOCK_OPS = 13
    SK_SKB = 14
    CGROUP_DEVICE = 15
    SK_MSG = 16
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    LWT_SEG6LOCAL = 19
    LIRC_MODE2 = 20
    SK_REUSEPORT = 21
    FLOW_DISSECTOR = 22
    CGROUP_SYSCTL = 23
    RAW_TRACEPOINT_WRITABLE = 24
    CGROUP_SOCKOPT = 25
    TRACING = 26
    STRUCT_OPS = 27
    EXT = 28
    LSM = 29
    SK_LOOKUP = 30
    SYSCALL = 31
    NETFILTER = 32


_COMMANDS = """
    map_create map_lookup_elem map_update_elem map_delete_elem map_get_next_key prog_load obj_pin obj_get
    prog_attach prog_detach prog_test_run prog_get_next_id map_get_next_id prog_get_fd_by_id map_get_fd_by_id
    obj_get_info_by_fd prog_query raw_tracepoint_open btf_load btf_get_fd_by_id task_fd_query
    map_lookup_and_delete_elem map_freeze btf_get_next_id map_lookup_batch map_lookup_and_delete_batch
    map_update_batch map_delete_batch link_create link_update link_get_fd_by_id link_get_next_id enable_stats
    iter_create link_detach prog_bind_map token_create prog_stream_read_by_fd prog_assoc_struct_ops
"""
COMMANDS = tuple(_COMMANDS.split())
"""The names of ``enum bpf_cmd``, in the order of their numbers, in lower case without prefix."""
