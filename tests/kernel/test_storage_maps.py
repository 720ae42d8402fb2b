"""Tests local storage of sockets, files and processes."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from pytest_bpfmaps import BPF_EXIST, BPF_NOEXIST, MapError, MapKeyError, MapTypeError, UnsupportedError

MAP = """
struct point {{ __s32 x, y; }};
struct {{
    __uint(type, BPF_MAP_TYPE_{type}_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct point);
}} the_map SEC(".maps");
"""


@pytest.fixture
def make_storage(load_code):
    return lambda type: load_code(MAP.format(type=type)).maps.the_map


def check_verbs(m, key):
    """Checks what all kinds do for an owner without a value."""
    assert key not in m
    with pytest.raises(MapKeyError, match=r"(?s)no key .* in map 'the_map'.*gets a value when"):
        m[key]
    with pytest.raises(MapKeyError):
        m.update_elem(key, (0, 0), BPF_EXIST)
    m[key] = (1, -2)
    assert m[key] == {"x": 1, "y": -2}
    assert m.get(key).y == -2
    with pytest.raises(MapError, match="exists already") as caught:
        m.update_elem(key, (3, 4), BPF_NOEXIST)
    assert caught.value.errno == errno.EEXIST
    m[key] = (3, 4)
    assert m.lookup_elem(key) == (3, 4)
    assert key in m
    del m[key]
    assert m.get(key, 5) == 5
    with pytest.raises(KeyError):
        del m[key]


@pytest.mark.bpf_requires("sk_storage")
def test_socket_storage(make_storage):
    m = make_storage("SK")
    with socket.socket() as one, socket.socket() as two:
        check_verbs(m, one)
        m[one] = (1, 1)
        m[two.fileno()] = (2, 2)
        assert m[one.fileno()] == (1, 1)
        assert m[two] == (2, 2)


@pytest.mark.bpf_requires("inode_storage")
def test_file_storage(make_storage, tmp_path):
    m = make_storage("INODE")
    path = tmp_path / "file"
    path.write_text("x")
    with path.open() as file:
        check_verbs(m, file)
        m[path] = (1, 1)
        assert m[file] == m[file.fileno()] == m[str(path)] == (1, 1)
    os.link(path, tmp_path / "other name")
    assert m[tmp_path / "other name"] == (1, 1)
    assert tmp_path not in m
    with pytest.raises(MapError, match=r"cannot find the file for map 'the_map' .*ENOENT") as caught:
        m[tmp_path / "none"]
    assert caught.value.errno == errno.ENOENT


@pytest.mark.bpf_requires("task_storage")
def test_process_storage(make_storage):
    m = make_storage("TASK")
    check_verbs(m, os.getpid())
    m[os.getpid()] = (1, 1)
    pidfd = os.pidfd_open(os.getpid())
    try:
        assert m[pidfd] == (1, 1)
    finally:
        os.close(pidfd)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        m[child] = (2, 2)
        assert m[child.pid] == (2, 2)
        child.stdin.close()
    with pytest.raises(KeyError, match=rf"no process {child.pid} for map 'the_map'.*ESRCH"):
        m[child.pid]


@pytest.mark.parametrize(
    ("type", "owner", "wanted"),
    [
        pytest.param(
            "SK", "file", "is /dev/null, not a socket", marks=pytest.mark.bpf_requires("sk_storage")
        ),
        pytest.param("SK", "text", "it is str, not a socket", marks=pytest.mark.bpf_requires("sk_storage")),
        pytest.param(
            "SK", "closed", "is not open, not a socket", marks=pytest.mark.bpf_requires("sk_storage")
        ),
        pytest.param(
            "INODE", "closed", "is not open, not a file", marks=pytest.mark.bpf_requires("inode_storage")
        ),
        pytest.param(
            "INODE", "none", "it is NoneType, not a file", marks=pytest.mark.bpf_requires("inode_storage")
        ),
        pytest.param(
            "TASK", "file", "/dev/null, not a process", marks=pytest.mark.bpf_requires("task_storage")
        ),
        pytest.param(
            "TASK", "text", "it is str, not a process", marks=pytest.mark.bpf_requires("task_storage")
        ),
    ],
)
def test_a_wrong_owner_is_named(make_storage, type, owner, wanted):
    m = make_storage(type)
    with open(os.devnull) as file:
        key = {"file": file, "text": "eth0", "closed": 9999, "none": None}[owner]
        for use in (m.__getitem__, m.__delitem__, lambda k: m.__setitem__(k, (1, 1))):
            with pytest.raises(
                MapTypeError, match=rf"(?s)cannot use .* as a key of map 'the_map'.*{wanted}.*-> give"
            ):
                use(key)


@pytest.mark.bpf_requires("sk_storage")
def test_owners_can_not_be_listed(make_storage):
    m = make_storage("SK")
    for use in (list, m.get_next_key):
        with pytest.raises(
            UnsupportedError, match=r"(?s)cannot list the keys of map 'the_map'.*iter/bpf_sk_storage_map"
        ):
            use(*([m] if use is list else []))


TASK_CODE = (
    MAP.format(type="TASK")
    + """
SEC("raw_tp/sys_enter")
int count(void *ctx)
{
    struct point *p = bpf_task_storage_get(&the_map, bpf_get_current_task_btf(), 0,
                                           BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (p)
        p->x++;
    return 0;
}
"""
)


@pytest.mark.bpf_requires("task_storage", "raw_tp/sys_enter", helper="bpf_get_current_task_btf")
def test_a_program_and_a_test_share_a_process_storage(load_code):
    obj = load_code("struct task_struct;" + TASK_CODE)
    m = obj.maps.the_map
    with obj.attach():
        os.getppid()
    seen = m[os.getpid()].x
    assert seen > 0
    m[os.getpid()] = (1000, 0)
    with obj.attach():
        os.getppid()
    assert m[os.getpid()].x > 1000
