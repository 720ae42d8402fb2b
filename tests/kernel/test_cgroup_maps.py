"""Tests maps about cgroups: both kinds of storage, and arrays of cgroups."""

import errno
import os
import socket

import pytest

from pytest_bpfmaps import BPF_NOEXIST, MapError, MapTypeError, MapValueError, UnsupportedError


@pytest.fixture
def cgroup(bpf_cgroup):
    """Returns the path of a new cgroup."""
    return bpf_cgroup.path


def send_from(cgroup):
    """Sends a packet to this process with a socket that belongs to the cgroup."""
    with cgroup.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"hello", sock.getsockname())
        assert sock.recv(10) == b"hello"


ATTACHED = """
struct point {{ __s64 x, y; }};
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __type(key, {key});
    __type(value, struct point);
}} storage SEC(".maps");

SEC("cgroup_skb/egress")
int out(struct __sk_buff *skb)
{{
    struct point *p = bpf_get_local_storage(&storage, 0);
    p->x++;
    return 1;
}}

SEC("cgroup_skb/ingress")
int in(struct __sk_buff *skb)
{{
    struct point *p = bpf_get_local_storage(&storage, 0);
    p->y++;
    return 1;
}}
"""
SHARED = pytest.param("CGROUP_STORAGE", marks=pytest.mark.bpf_requires("cgroup_storage", "cgroup_skb"))
PER_CPU = pytest.param(
    "PERCPU_CGROUP_STORAGE", marks=pytest.mark.bpf_requires("percpu_cgroup_storage", "cgroup_skb")
)


def total(value):
    return value.sum() if isinstance(value, tuple) else value


@pytest.mark.parametrize("type", [SHARED, PER_CPU])
def test_storage_of_an_attached_program(load_code, cgroup, bpf_cgroup, type):
    obj = load_code(ATTACHED.format(type=type, key="struct bpf_cgroup_storage_key"))
    m = obj.maps.storage
    assert m == {}
    assert cgroup not in m
    with pytest.raises(KeyError, match=rf"no key .* in map 'storage' \({type.lower()}\)"):
        m[cgroup]
    with obj.programs.out.attach(cgroup=str(cgroup)):
        send_from(bpf_cgroup)
        send_from(bpf_cgroup)
        assert total(m[cgroup]) == {"x": 2, "y": 0}
        assert total(m[str(cgroup), "cgroup_inet_egress"]) == {"x": 2, "y": 0}
        assert total(m[cgroup, "BPF_CGROUP_INET_EGRESS"]) == {"x": 2, "y": 0}
        assert [k.cgroup_inode_id for k in m] == [cgroup.stat().st_ino]
        key = next(iter(m))
        assert total(m[key]) == {"x": 2, "y": 0}
        assert total(m[key.cgroup_inode_id]) == {"x": 2, "y": 0}
        assert len(m) == 1
        assert cgroup in m
        m[cgroup] = (10, 0)
        send_from(bpf_cgroup)
        assert total(m[cgroup])["x"] % 10 == 1
        with pytest.raises(
            MapTypeError, match=r"(?s)cannot delete .*live as long as the program is attached"
        ):
            del m[cgroup]
        with pytest.raises(MapError):
            m.update_elem(cgroup, (0, 0), BPF_NOEXIST)


@pytest.mark.parametrize("type", [SHARED, PER_CPU])
@pytest.mark.parametrize("key", ["struct bpf_cgroup_storage_key", "__u64"])
def test_several_cgroups(load_code, bpf_cgroup, type, key):
    obj = load_code(ATTACHED.format(type=type, key=key))
    m, folders = obj.maps.storage, [bpf_cgroup.path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    try:
        with obj.programs.out.attach(cgroup=folders[0]), obj.programs.out.attach(cgroup=folders[2]):
            m[folders[0]], m[folders[2]] = (10, 1), (30, 3)
            for folder, first in ((folders[0], 10), (folders[2], 30)):
                assert (list(m[folder]) if "PERCPU" in type else [m[folder]])[0].x == first
                assert folder in m
            assert folders[1] not in m
            assert m.get(folders[1], 7) == 7
            assert len(m) == 2
    finally:
        for folder in folders:
            folder.rmdir()


@pytest.mark.bpf_requires("cgroup_storage", "cgroup_skb")
def test_two_attach_types_have_two_elements(load_code, cgroup, bpf_cgroup):
    obj = load_code(ATTACHED.format(type="CGROUP_STORAGE", key="struct bpf_cgroup_storage_key"))
    m = obj.maps.storage
    with obj.programs.out.attach(cgroup=str(cgroup)), obj.programs["in"].attach(cgroup=str(cgroup)):
        send_from(bpf_cgroup)
        assert m[cgroup, "cgroup_inet_egress"] == {"x": 1, "y": 0}
        assert m[cgroup, "cgroup_inet_ingress"] == {"x": 0, "y": 1}
        assert len(m) == 2
        with pytest.raises(MapValueError, match=r"(?s)several attach types.*as the key"):
            m[cgroup]
        with pytest.raises(MapValueError, match=r"(?s)no attach type 'egress'"):
            m[cgroup, "egress"]


@pytest.mark.bpf_requires("cgroup_storage", "cgroup_skb")
def test_attach_types_share_an_element_where_the_key_is_the_id(load_code, cgroup, bpf_cgroup):
    obj = load_code(ATTACHED.format(type="CGROUP_STORAGE", key="__u64"))
    m = obj.maps.storage
    with obj.programs.out.attach(cgroup=str(cgroup)), obj.programs["in"].attach(cgroup=str(cgroup)):
        send_from(bpf_cgroup)
        assert m[cgroup] == {"x": 1, "y": 1}
        assert m == {cgroup: (1, 1)}
        (key,) = m
        assert key == cgroup.stat().st_ino
        assert m[key] == {"x": 1, "y": 1}
        fd = os.open(cgroup, os.O_RDONLY)
        try:
            assert m[fd] == {"x": 1, "y": 1}
        finally:
            os.close(fd)


STORAGE = """
struct {
    __uint(type, 32); // BPF_MAP_TYPE_CGRP_STORAGE, younger than some <linux/bpf.h>
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, __u64);
} storage SEC(".maps");
"""


@pytest.mark.bpf_requires("cgrp_storage")
def test_storage_for_any_program(load_code, cgroup):
    m = load_code(STORAGE).maps.storage
    assert cgroup not in m
    m[cgroup] = 7
    assert m[str(cgroup)] == 7
    fd = os.open(cgroup, os.O_RDONLY)
    try:
        assert m[fd] == 7
    finally:
        os.close(fd)
    del m[cgroup]
    assert m.get(cgroup) is None
    with pytest.raises(MapTypeError, match=r"(?s)fd \d+ is /, not a cgroup v2 folder.*the path of a cgroup"):
        m["/"] = 1
    with pytest.raises(MapError, match=r"cannot open the cgroup at .*ENOENT") as caught:
        m[cgroup / "none"]
    assert caught.value.errno == errno.ENOENT


ARRAY = """
struct {
    __uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u32);
} groups SEC(".maps");
"""
ASKS = """
int inside, outside, pid;

SEC("raw_tp/sys_enter")
int ask(void *ctx)
{
    if (bpf_get_current_pid_tgid() >> 32 != pid)
        return 0;
    if (bpf_current_task_under_cgroup(&groups, 1) == 1)
        inside++;
    else
        outside++;
    return 0;
}
"""


@pytest.mark.bpf_requires("cgroup_array")
def test_an_array_of_cgroups(load_code, cgroup):
    m = load_code(ARRAY).maps.groups
    m[1] = cgroup
    m[0] = str(cgroup)
    fd = os.open(cgroup, os.O_RDONLY)
    try:
        m[0] = fd
    finally:
        os.close(fd)
    del m[0]
    with pytest.raises(KeyError):
        del m[0]
    with pytest.raises(UnsupportedError, match=r"cannot read map 'groups' \(cgroup_array\)"):
        m[1]
    with pytest.raises(MapTypeError, match="not a cgroup v2 folder"):
        m[0] = "/"
    with pytest.raises(MapError, match="its indices go from 0 to 1"):
        m[2] = cgroup


@pytest.mark.bpf_requires("cgroup_array", "raw_tp/sys_enter")
def test_a_program_asks_whether_a_process_is_inside(load_code, cgroup, bpf_cgroup):
    obj = load_code(ARRAY + ASKS, globals={"pid": os.getpid()})
    obj.maps.groups[1] = cgroup
    with obj.attach():
        os.getppid()
        assert obj.globals.outside > 0
        assert obj.globals.inside == 0
        with bpf_cgroup.enter():
            os.getppid()
    assert obj.globals.inside > 0
