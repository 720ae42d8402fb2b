"""Tests maps that are read-only or write-only: a refused access must not look like a missing key."""

import errno
import os
import socket

import pytest

from pytest_bpfmaps import MapError, MapKeyError
from pytest_bpfmaps.kernel.map_flags import BPF_F_ALL_CPUS, BPF_F_CPU

BPF_F_NO_PREALLOC, BPF_F_RDONLY, BPF_F_WRONLY = 1, 1 << 3, 1 << 4
PREFIX = "struct { __u32 prefixlen; __u8 data[4]; }"
LISTED = ["hash", "lru_hash", "percpu_hash", "lpm_trie"]
INDEXED = ["array", "percpu_array"]
QUEUES = ["queue", "stack"]


@pytest.fixture
def make(bpf):
    def make(type, access):
        flags = access | (BPF_F_NO_PREALLOC if type == "lpm_trie" else 0)
        key = {"lpm_trie": PREFIX}.get(type, "__u32")
        options = {} if type in QUEUES else {"key": key}
        return bpf.create_map(type, value="__u64", max_entries=4, flags=flags, **options)

    return make


READS = {
    "getitem": lambda m, key: m[key],
    "lookup_elem": lambda m, key: m.lookup_elem(key),
    "get": lambda m, key: m.get(key),
    "get_or": lambda m, key: m.get(key, 7),
    "values": lambda m, key: list(m.values()),
    "items": lambda m, key: list(m.items()),
    "snapshot": lambda m, key: m.snapshot(),
    "lookup_batch": lambda m, key: m.lookup_batch(),
    "equal": lambda m, key: m == {},
}
LISTING = {  # arrays know their keys without the kernel
    "contains": lambda m, key: key in m,
    "len": lambda m, key: len(m),
    "iter": lambda m, key: list(m),
    "keys": lambda m, key: list(m.keys()),
    "get_next_key": lambda m, key: m.get_next_key(),
    "lookup_and_delete_elem": lambda m, key: m.lookup_and_delete_elem(key),
    "pop": lambda m, key: m.pop(key),
    "pop_or": lambda m, key: m.pop(key, 7),
}
WRITES = {
    "setitem": lambda m, key: m.__setitem__(key, 1),
    "update_elem": lambda m, key: m.update_elem(key, 1),
    "update": lambda m, key: m.update({key: 1}),
    "update_batch": lambda m, key: m.update_batch({key: 1}),
}
DELETES = {
    "delitem": lambda m, key: m.__delitem__(key),
    "delete_elem": lambda m, key: m.delete_elem(key),
    "delete_batch": lambda m, key: m.delete_batch([key]),
    "pop": lambda m, key: m.pop(key, 7),
}

CLEAR = {"clear": lambda m, key: m.clear()}


FROZEN = "the map may also be frozen"


def check_refused(what, m, key, advice=""):
    with pytest.raises(MapError) as caught:
        what(m, key)
    assert not isinstance(caught.value, MapKeyError)
    assert caught.value.errno == errno.EPERM
    assert advice in str(caught.value)


@pytest.mark.parametrize("read", [*READS, *LISTING])
@pytest.mark.parametrize("type", LISTED)
def test_no_read_of_a_map_to_write(make, type, read):
    m = make(type, BPF_F_WRONLY)
    key = (32, b"\1\2\3\4") if type == "lpm_trie" else 1
    m[key] = 1
    check_refused((READS | LISTING)[read], m, key)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("type", INDEXED)
def test_no_read_of_an_array_to_write(make, type, read):
    m = make(type, BPF_F_WRONLY)
    m[1] = 1
    check_refused(READS[read], m, 1)


@pytest.mark.parametrize("type", INDEXED)
def test_an_array_knows_its_keys_without_the_kernel(make, type):
    m = make(type, BPF_F_WRONLY)
    assert list(m) == list(m.keys()) == [0, 1, 2, 3]
    assert m.keys() == {0, 1, 2, 3}
    assert [key in m.keys() for key in (3, 4)] == [True, False]  # noqa: SIM118 - `in m` asks the kernel
    assert len(m) == 4


@pytest.mark.parametrize("write", [*WRITES, *DELETES])
@pytest.mark.parametrize("type", LISTED)
def test_no_write_to_a_map_to_read(make, type, write):
    m = make(type, BPF_F_RDONLY)
    check_refused((WRITES | DELETES)[write], m, (32, b"\1\2\3\4") if type == "lpm_trie" else 1)
    assert m == {}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("type", INDEXED)
def test_no_write_to_an_array_to_read(make, type, write):
    check_refused(WRITES[write], make(type, BPF_F_RDONLY), 1)


@pytest.mark.parametrize("type", QUEUES)
def test_queues(make, type):
    check_refused(lambda m, _: m.push(1), make(type, BPF_F_RDONLY), None)
    m = make(type, BPF_F_WRONLY)
    m.push(1)
    check_refused(lambda m, _: m.peek(), m, None)
    check_refused(lambda m, _: m.pop(), m, None)


@pytest.mark.parametrize("type", ["percpu_hash", "percpu_array"])
def test_one_cpus_value(make, type):
    """The flags came with Linux 6.19, but every kernel asks first whether the access is allowed."""
    check_refused(lambda m, key: m.update_elem(key, 1, BPF_F_ALL_CPUS), make(type, BPF_F_RDONLY), 1)
    check_refused(lambda m, key: m.update_elem(key, 1, BPF_F_CPU), make(type, BPF_F_RDONLY), 1)


@pytest.mark.parametrize("write", [*WRITES, *DELETES, "clear"])
@pytest.mark.parametrize("type", LISTED)
def test_no_write_to_a_frozen_map(make, type, write):
    m = make(type, 0)
    key = (32, b"\1\2\3\4") if type == "lpm_trie" else 1
    m[key] = 5
    m.freeze()
    check_refused((WRITES | DELETES | CLEAR)[write], m, key, FROZEN)
    assert m == {key: (5,) * len(m[key]) if "percpu" in type else 5}


@pytest.mark.parametrize("write", [*WRITES, "clear"])
@pytest.mark.parametrize("type", INDEXED)
def test_no_write_to_a_frozen_array(make, type, write):
    m = make(type, 0)
    m[1] = 5
    m.freeze()
    check_refused((WRITES | CLEAR)[write], m, 1, FROZEN)
    assert m[1] == ((5,) * len(m[1]) if type == "percpu_array" else 5)


def test_elements_of_an_array_are_not_deleted(make):
    m = make("array", 0)
    with pytest.raises(MapError, match="elements of an array can't be created or deleted") as caught:
        m.delete_batch([1])
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("type", [*LISTED, "hash_of_maps"])
def test_a_descriptor_that_is_of_something_else(make, bpf, type):
    """No error of the kernel is taken for a key that is missing, or for the end of a list."""
    inner = {"type": "array", "value": "u64", "max_entries": 1}
    if type == "hash_of_maps":
        m, key = bpf.create_map(type, key="__u32", max_entries=4, inner=inner), 1
    else:
        m, key = make(type, 0), (32, b"\1\2\3\4") if type == "lpm_trie" else 1
    kept = os.dup(m.fd)
    with open(os.devnull) as other:  # so that no thread gets the number meanwhile
        os.dup2(other.fileno(), m.fd)
    try:
        for name in ("getitem", "get", "get_or", "contains", "iter", "len", "equal", "items"):
            with pytest.raises(MapError) as caught:
                (READS | LISTING)[name](m, key)
            assert not isinstance(caught.value, MapKeyError), name
            if (type, name) == ("hash_of_maps", "iter"):
                assert "cannot list the keys of" in str(caught.value)
    finally:
        os.dup2(kept, m.fd)
        os.close(kept)
    assert m == {}


@pytest.mark.parametrize("type", QUEUES)
def test_frozen_queues(make, type):
    m = make(type, 0)
    m.push(5)
    m.freeze()
    check_refused(lambda m, _: m.push(1), m, None)
    check_refused(lambda m, _: m.pop(), m, None)
    check_refused(lambda m, _: m.clear(), m, None)
    assert m.peek() == 5


@pytest.mark.bpf_requires("bloom_filter")
def test_frozen_bloom_filters(bpf):
    m = bpf.create_map("bloom_filter", value="__u64", max_entries=4)
    m.add(5)
    m.freeze()
    check_refused(lambda m, _: m.push(6), m, None, "EPERM: ")
    assert 5 in m


@pytest.mark.parametrize(
    "type", ["array_of_maps", "hash_of_maps", "devmap", "cpumap", "sockhash", "sk_storage"]
)
def test_frozen_maps_of_references(bpf, type):
    inner = {"inner": {"type": "array", "value": "u64", "max_entries": 1}} if "of_maps" in type else {}
    sizes = {} if type == "sk_storage" else {"max_entries": 4}
    key = {"hash_of_maps": "__u32", "sockhash": "__u32"}.get(type)
    m = bpf.create_map(type, key=key, value={"sockhash": 8, "sk_storage": "u64"}.get(type), **sizes, **inner)
    with socket.create_server(("127.0.0.1", 0)) as server:
        values = {"devmap": 1, "cpumap": 64, "sockhash": server, "sk_storage": 7}
        value = values[type] if type in values else bpf.create_map("array", value="u64", max_entries=1)
        key = server if type == "sk_storage" else 0
        m[key] = value
        m.freeze()
        check_refused(lambda m, key: m.__setitem__(key, value), m, key)
        check_refused(lambda m, key: m.__delitem__(key), m, key)
        if type != "sk_storage":
            check_refused(lambda m, key: m.clear(), m, key)
            assert list(m) == [0]
        assert m[key] == value
