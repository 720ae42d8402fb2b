"""Tests which attribute the message about a refused map names, with which value, and what it advises."""

import mmap

import pytest

from pytest_bpfmaps import MapError

PAGE = mmap.PAGESIZE
MOST_PER_CPU = 32 << 10  # bytes: PCPU_MIN_UNIT_SIZE of include/linux/percpu.h
HASH = {"type": "hash", "key": 4, "value": 4, "max_entries": 1}
TRIE = {"type": "lpm_trie", "key": 8, "value": 4, "max_entries": 1}

BUFFER = f"it is the buffer's size in bytes: a power of 2, and a multiple of {PAGE}"
PREFIX = "a key begins with '__u32 prefixlen;', and 1 to 256 bytes of data follow"
SMALLER = "make the value smaller, or divide it among several elements"
FEWER = "make fewer or smaller elements"
EMPTY = "it has to be at least 1: __uint(max_entries, …) in C, max_entries= of bpf.create_map"
OTHER_FLAGS = "it can be created: those flags are not for this type, or are newer than this kernel"

REFUSED = [
    (
        {"type": "percpu_array", "value": MOST_PER_CPU + 1},
        f"its values have {MOST_PER_CPU + 1} bytes, but a per-CPU map's have at most {MOST_PER_CPU}",
        SMALLER,
    ),
    (
        {"type": "lru_percpu_hash", "key": 4, "value": 40000},
        f"its values have 40000 bytes, but a per-CPU map's have at most {MOST_PER_CPU}",
        SMALLER,
    ),
    (
        {"type": "cpumap", "max_entries": 1 << 20},
        f"it is for {1 << 20} CPUs, but this kernel is built for fewer",
        "give max_entries= the number of CPUs of the machine, os.cpu_count(), or 64",
    ),
    (
        HASH | {"max_entries": 2**32 - 1},
        f"E2BIG: Argument list too long: {2**32 - 1} elements (max_entries) of 8 bytes are "
        f"{8 * (2**32 - 1)} bytes",
        FEWER,
    ),
    *(
        ({"type": type, "max_entries": size}, f"the kernel refuses max_entries={size}", BUFFER)
        for type in ("ringbuf", "user_ringbuf")
        for size in (0, 1, PAGE // 2, PAGE + 1, 3 * PAGE)
    ),
    *((TRIE | {"key": size}, f"the kernel refuses key_size={size}", PREFIX) for size in (1, 4, 261)),
    (TRIE | {"value": 1 << 30}, f"the kernel refuses value_size={1 << 30}", "it takes 8, for example"),
    (HASH | {"max_entries": 0}, "the kernel refuses max_entries=0", EMPTY),
    *(
        (
            HASH | {part: 0},
            f"it has no {part}",
            f"declare one: __type({part}, …) in C, {part}='u64' of bpf.create_map",
        )
        for part in ("key", "value")
    ),
    *(
        (
            HASH | {"flags": flags},
            f"the kernel refuses map_flags={flags:#x}",
            f"use one of {one} and {other}, or none of them",
        )
        for flags, one, other in (
            (0x18, "BPF_F_RDONLY", "BPF_F_WRONLY"),
            (0x180, "BPF_F_RDONLY_PROG", "BPF_F_WRONLY_PROG"),
        )
    ),
    *(
        (
            HASH | {"flags": flags | 0x80},  # 0x80 is allowed
            f"the kernel refuses map_flags={flags | 0x80:#x}",
            f"without {flags | (0x80 if flags == 3 << 29 else 0):#x} {OTHER_FLAGS}",
        )
        for flags in (1 << 29, 1 << 31, 3 << 29)
    ),
    (
        HASH | {"flags": 1 << 19},
        "the kernel refuses map_flags=0x80000",
        f"without 0x80000 (BPF_F_RB_OVERWRITE, Linux 6.19) {OTHER_FLAGS}",
    ),
    (
        {"type": "lru_hash", "key": 4, "value": 4, "flags": 1},
        "the kernel refuses map_flags=0x1",
        f"without 0x1 {OTHER_FLAGS}",
    ),
    ({"type": "array", "key": 8, "value": 4}, "the kernel refuses key_size=8",
     "maps of type array have keys of 4 bytes"),
    *(
        (
            {"type": type, "value": size},
            f"the kernel refuses value_size={size}",
            f"it takes {takes}, for example",
        )
        for type, size, takes in (
            ("reuseport_sockarray", 3, 8),
            ("stack_trace", 5, 127 * 8),
            ("devmap", 5, 4),
            ("sockmap", 5, 4),
        )
    ),
    (
        {"type": "devmap_hash", "max_entries": (1 << 31) + 1},
        f"the kernel refuses max_entries={(1 << 31) + 1}",
        "it takes 1, for example",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "why", "fix"), REFUSED)
def test_what_is_refused(bpf, bpf_kernel, given, why, fix):
    if not bpf_kernel.has(map_type=given["type"]):
        pytest.skip(f"this kernel has no maps of type {given['type']}")
    with pytest.raises(MapError) as refused:
        bpf.create_map(**({"max_entries": 1} | given))
    assert (refused.value.why, refused.value.fix) == (why, fix)


@pytest.mark.parametrize(
    "given",
    [
        {"type": "percpu_array", "value": MOST_PER_CPU},
        {"type": "ringbuf", "max_entries": PAGE},
        {"type": "ringbuf", "max_entries": 4 * PAGE},
        TRIE | {"key": 5},
        TRIE | {"key": 260},
    ],
)
def test_what_is_just_allowed(bpf, given):
    m = bpf.create_map(**({"max_entries": 1} | given))
    assert m.value_size == given.get("value", 0)


@pytest.mark.bpf_requires("bloom_filter")
def test_hash_functions_of_bloom_filters(bpf):
    filters = {"type": "bloom_filter", "value": 4, "max_entries": 1}
    bpf.create_map(**filters, extra=15)
    with pytest.raises(MapError) as refused:
        bpf.create_map(**filters, extra=16)
    assert refused.value.why == "the kernel refuses map_extra=16"
    assert refused.value.fix == "it is the number of hash functions, 1 to 15; 0 for 5 of them"
    with pytest.raises(MapError) as refused:
        bpf.create_map(**HASH, extra=3)
    assert refused.value.why == "the kernel refuses map_extra=3"
    assert refused.value.fix == "maps of this type have none: leave it out"


@pytest.mark.bpf_requires("arena")
def test_addresses_of_arenas(bpf):
    with pytest.raises(MapError) as refused:
        bpf.create_map("arena", max_entries=1, extra=5)
    assert refused.value.why == "the kernel refuses map_extra=5"
    assert refused.value.fix == (
        "it is the address at which it is mapped, a multiple of the size of a page; 0 for any"
    )
