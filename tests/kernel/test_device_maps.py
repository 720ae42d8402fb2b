"""Tests device maps and CPU maps, to which XDP programs redirect packets."""

import errno
import re
import socket

import pytest

from pytest_bpfmaps import BPF_NOEXIST, MapError, MapTypeError, MapValueError

MAP = """
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __uint(max_entries, {max_entries});
    __type(key, __u32);
    __type(value, {value});
}} the_map SEC(".maps");
"""
DEVMAP = pytest.param("DEVMAP", marks=pytest.mark.bpf_requires("devmap"))
DEVMAP_HASH = pytest.param("DEVMAP_HASH", marks=pytest.mark.bpf_requires("devmap_hash"))
REDIRECT = """
SEC("xdp") int redirect(struct xdp_md *ctx) { return bpf_redirect_map(&the_map, 1, XDP_DROP); }
SEC("xdp") int plain(struct xdp_md *ctx) { return XDP_PASS; }
"""
XDP_DROP, XDP_REDIRECT = 1, 4
LO = socket.if_nametoindex("lo")


@pytest.fixture
def make(load_code):
    def make(type, value="__u32", max_entries=2, more=""):
        return load_code(MAP.format(type=type, value=value, max_entries=max_entries) + more)

    return make


@pytest.mark.parametrize("type", [DEVMAP, DEVMAP_HASH])
def test_interfaces_by_name_and_index(make, type):
    m = make(type).maps.the_map
    assert m == {}
    m[1] = "lo"
    assert m[1] == LO
    m[0] = LO
    assert m == {0: LO, 1: LO}
    assert len(m) == 2
    del m[1]
    assert m == {0: LO}
    assert 1 not in m
    with pytest.raises(KeyError, match=rf"(?s)no key 1 in map 'the_map' \({type.lower()}\).*its keys: 0"):
        del m[1]
    with pytest.raises(KeyError):
        m[1]
    m.clear()
    assert list(m.items()) == []


@pytest.mark.bpf_requires("devmap_hash")
def test_keys_of_a_devmap_hash_are_any_numbers(make):
    m = make("DEVMAP_HASH").maps.the_map
    m[1_000_000] = "lo"
    assert m == {1_000_000: LO}


@pytest.mark.parametrize("type", [DEVMAP, DEVMAP_HASH])
def test_unknown_interfaces(make, type):
    m = make(type).maps.the_map
    with pytest.raises(
        MapValueError, match=r"(?s)no interface of that name in this network namespace.*'lo'"
    ) as caught:
        m[0] = "lo0"
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(MapError, match=r"(?s)no interface with that index.*if_nameindex"):
        m[0] = 1_000_000
    with pytest.raises(MapTypeError, match=r"(?s)its value is only a number.*struct bpf_devmap_val"):
        m[0] = ("lo", 3)


@pytest.mark.bpf_requires("devmap", "cpumap")
def test_a_flag_and_not_the_interface_is_refused(bpf):
    m = bpf.create_map("devmap_hash", max_entries=8)
    m[0] = 1
    for flags, number in ((BPF_NOEXIST, errno.EEXIST), (99, errno.EINVAL)):
        with pytest.raises(MapError) as refused:
            m.update_elem(0, 1, flags)
        assert refused.value.errno == number
        assert "interface" not in str(refused.value)


@pytest.mark.parametrize("count", [1, 4, 5, 6, 8])
def test_a_missing_key_names_those_that_are_there(bpf, count):
    m = bpf.create_map("devmap_hash", key="u32", max_entries=8)
    m.update(dict.fromkeys(range(count), 1))
    with pytest.raises(MapError) as missing:
        m[99]
    keys = [int(key) for key in re.findall(r"\d+", missing.value.fix)]
    assert missing.value.fix.startswith("its keys: ")
    assert len(keys) == min(count, 5)
    assert set(keys) <= set(range(count))
    assert missing.value.fix.endswith(", …") == (count > 5)
    m.clear()
    with pytest.raises(MapError) as missing:
        m[99]
    assert missing.value.fix == "nothing was put into the map"


def test_indices_out_of_range(make):
    for type in ("DEVMAP", "CPUMAP"):
        m = make(type).maps.the_map
        with pytest.raises(MapError, match="its indices go from 0 to 1"):
            m[2] = 1


@pytest.mark.bpf_requires("devmap", "xdp")
def test_a_program_redirects_to_what_is_in_the_map(make):
    obj = make("DEVMAP", more=REDIRECT)
    assert obj.programs.redirect.run(bytes(64)).retval == XDP_DROP
    obj.maps.the_map[1] = "lo"
    assert obj.programs.redirect.run(bytes(64)).retval == XDP_REDIRECT


WITH_PROGRAM = """
SEC("xdp/{section}") int there(struct xdp_md *ctx) {{ return XDP_PASS; }}
SEC("xdp") int plain(struct xdp_md *ctx) {{ return XDP_PASS; }}
"""


@pytest.mark.bpf_requires("devmap", "xdp/devmap")
def test_a_devmap_with_programs(make):
    obj = make("DEVMAP", "struct bpf_devmap_val", more=WITH_PROGRAM.format(section="devmap"))
    m, there = obj.maps.the_map, obj.programs.there
    m[0] = "lo"
    assert m[0] == {"ifindex": LO, "bpf_prog": {"id": 0}}
    m[1] = ("lo", there)
    assert m[1].ifindex == LO
    assert m[1].bpf_prog.id == there.id
    m[0] = {"ifindex": LO, "bpf_prog": {"fd": there.fd}}
    assert m[0].bpf_prog.id == there.id
    with pytest.raises(MapError, match=r'(?s)not for this kind of map.*SEC\("xdp/devmap"\)'):
        m[0] = ("lo", obj.programs.plain)
    with pytest.raises(MapTypeError, match=r"(?s)'there' is not a program"):
        m[0] = ("lo", "there")


def other_possible_cpu():
    """Returns a CPU number that is larger than any on this machine."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().split("-")[-1]) + 1


@pytest.mark.bpf_requires("cpumap")
def test_queues_of_cpus(make):
    m = make("CPUMAP", max_entries=other_possible_cpu() + 1).maps.the_map
    m[0] = 64
    assert m == {0: 64}
    del m[0]
    assert m == {}
    with pytest.raises(KeyError):
        del m[0]
    with pytest.raises(MapError, match=r"(?s)can't have a CPU with that number.*possible") as caught:
        m[other_possible_cpu()] = 64
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(MapError, match="at most 16384 packets"):
        m[0] = 100_000
    with pytest.raises(MapTypeError, match="a queue size is an int"):
        m[0] = "64"


@pytest.mark.bpf_requires("cpumap", "xdp/cpumap")
def test_a_cpumap_with_programs(make):
    obj = make("CPUMAP", "struct bpf_cpumap_val", more=WITH_PROGRAM.format(section="cpumap"))
    m = obj.maps.the_map
    m[0] = 32
    assert m[0] == {"qsize": 32, "bpf_prog": {"id": 0}}
    m[0] = (64, obj.programs.there)
    assert m[0].qsize == 64
    assert m[0].bpf_prog.id == obj.programs.there.id
    with pytest.raises(MapError, match=r'(?s)for this kind of map.*SEC\("xdp/cpumap"\)'):
        m[0] = (64, obj.programs.plain)


@pytest.mark.bpf_requires("devmap", "xdp/devmap")
def test_a_map_without_types_reads_the_same(make, bpf):
    obj = make("DEVMAP", "struct bpf_devmap_val", more=WITH_PROGRAM.format(section="devmap"))
    obj.maps.the_map[0] = "lo"
    again = bpf.map_by_id(obj.maps.the_map.id)
    assert again[0] == {"ifindex": LO, "bpf_prog": {"id": 0}}
    again[1] = ("lo", obj.programs.there)
    assert obj.maps.the_map[1].bpf_prog.id == obj.programs.there.id
