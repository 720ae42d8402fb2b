"""Tests maps of sockets: sockmap, sockhash, reuseport arrays, AF_XDP."""

import ctypes
import errno
import mmap
import os
import socket

import pytest

from pytest_bpfmaps import BPF_EXIST, BPF_NOEXIST, MapError, MapTypeError, UnsupportedError
from pytest_bpfmaps.maps.families.sockets import SocketCookie

MAP = """
struct {{
    __uint(type, BPF_MAP_TYPE_{type});
    __uint(max_entries, 4);
    __type(key, {key});
    __type(value, {value});
}} the_map SEC(".maps");
"""
SOCKMAP = pytest.param("SOCKMAP", marks=pytest.mark.bpf_requires("sockmap"))
SOCKHASH = pytest.param("SOCKHASH", marks=pytest.mark.bpf_requires("sockhash"))


@pytest.fixture
def make(load_code):
    def make(type, key="__u32", value="__u64", more=""):
        return load_code(MAP.format(type=type, key=key, value=value) + more)

    return make


@pytest.fixture
def pair():
    """Yields both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        yield client, accepted


@pytest.mark.parametrize("type", [SOCKMAP, SOCKHASH])
def test_sockets_go_in_and_cookies_come_out(make, type, pair):
    m = make(type).maps.the_map
    client, accepted = pair
    assert m == {}
    m[1] = client
    m[2] = accepted.fileno()
    assert m[1] == client
    assert m[1] != accepted
    assert m == {1: client, 2: accepted}
    assert m != {1: accepted, 2: client}
    assert sorted(m) == [1, 2]
    assert repr(m[1]) == f"<socket cookie {int(m[1])}>"
    del m[1]
    assert m == {2: accepted}
    with pytest.raises(KeyError, match=r"(?s)no key 1 in map 'the_map'.*its keys: 2"):
        del m[1]
    with pytest.raises(KeyError):
        m[1]
    m.clear()
    assert m == {}


@pytest.mark.parametrize("type", [SOCKMAP, SOCKHASH])
def test_flags(make, type, pair):
    m = make(type).maps.the_map
    with pytest.raises(KeyError):
        m.update_elem(1, pair[0], BPF_EXIST)
    m.update_elem(1, pair[0], BPF_NOEXIST)
    with pytest.raises(MapError, match="exists already") as caught:
        m.update_elem(1, pair[1], BPF_NOEXIST)
    assert caught.value.errno == errno.EEXIST


@pytest.mark.parametrize("type", [SOCKMAP, SOCKHASH])
def test_a_closed_socket_leaves_the_map(make, type, bpf):
    m = make(type).maps.the_map
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0]:
            m[0] = client
            assert 0 in m
        bpf.wait_until(lambda: 0 not in m, timeout=60)


@pytest.mark.bpf_requires("sockhash")
def test_keys_of_a_sockhash_are_typed(make, pair):
    m = make("SOCKHASH", key="struct { __u32 port; __u8 address[4]; }").maps.the_map
    m[(80, b"\x7f\0\0\1")] = pair[0]
    assert m == {(80, b"\x7f\0\0\1"): pair[0]}


@pytest.mark.parametrize("type", [SOCKMAP, SOCKHASH])
def test_wrong_sockets(make, type):
    m = make(type).maps.the_map
    with open(os.devnull) as file, pytest.raises(MapTypeError, match=r"fd .* is /dev/null, not a socket"):
        m[0] = file
    with pytest.raises(MapTypeError, match="it is str, not a socket"):
        m[0] = "127.0.0.1:80"
    with (
        socket.socket() as fresh,
        pytest.raises(MapError, match=r"(?s)in this state.*connected") as caught,
    ):
        m[0] = fresh
    assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(MapTypeError, match="it is SocketCookie"):
        m[0] = SocketCookie(7)


@pytest.mark.bpf_requires("sockmap")
def test_values_of_4_bytes_can_not_be_read(make, pair):
    m = make("SOCKMAP", value="__u32").maps.the_map
    m[0] = pair[0]
    with pytest.raises(UnsupportedError, match=r"(?s)cannot read map 'the_map'.*declared with 8 bytes"):
        m[0]
    del m[0]
    with pytest.raises(KeyError):
        del m[0]


STEERING = """
SEC("sk_reuseport")
int choose(struct sk_reuseport_md *md)
{
    __u32 index = 1;
    return bpf_sk_select_reuseport(md, &the_map, &index, 0) ? SK_DROP : SK_PASS;
}
"""


def listener(port=0, kind=socket.SOCK_DGRAM):
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.settimeout(300)
    return sock


@pytest.mark.bpf_requires("reuseport_sockarray", "sk_reuseport")
def test_a_program_chooses_among_the_sockets_of_a_port(make):
    obj = make("REUSEPORT_SOCKARRAY", more=STEERING)
    m = obj.maps.the_map
    with (
        listener() as one,
        listener(one.getsockname()[1]) as two,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        one.setsockopt(socket.SOL_SOCKET, 52, obj.programs.choose.fd)  # SO_ATTACH_REUSEPORT_EBPF
        m[0] = one
        m[1] = two
        assert m == {0: one, 1: two}
        for _ in range(8):
            sender.sendto(b"x", one.getsockname())
        assert [two.recv(10) for _ in range(8)] == [b"x"] * 8
        m.clear()
        assert m == {}
        m[0] = two
        with pytest.raises(MapError, match=r"(?s)in such a map already.*delete it there"):
            m[1] = two
    with pytest.raises(KeyError):
        m[0]  # the socket was closed


@pytest.mark.bpf_requires("reuseport_sockarray")
def test_wrong_reuseport_sockets(make):
    m = make("REUSEPORT_SOCKARRAY").maps.the_map
    with socket.socket() as fresh, pytest.raises(MapError, match=r"(?s)no SO_REUSEPORT.*before bind"):
        m[0] = fresh
    with socket.socket(socket.AF_UNIX) as unix, pytest.raises(MapError, match="not a TCP or UDP socket"):
        m[0] = unix
    with pytest.raises(KeyError):
        del m[0]
    with listener() as sock, pytest.raises(MapError, match="its indices go from 0 to 3"):
        m[4] = sock


XDP_UMEM_REG, XDP_RX_RING, XDP_UMEM_FILL_RING, SOL_XDP, AF_XDP = 4, 2, 5, 283, 44


@pytest.fixture
def xdp_socket():
    """Yields an AF_XDP socket that is ready to receive, with memory for its packets."""
    try:
        sock = socket.socket(AF_XDP, socket.SOCK_RAW)
    except OSError as e:
        pytest.skip(f"this kernel has no AF_XDP: {e}")
    memory = mmap.mmap(-1, 16 * 4096)
    view = ctypes.c_char.from_buffer(memory)
    address = ctypes.addressof(view)
    with sock:
        area = b"".join(n.to_bytes(8, "little") for n in (address, len(memory), 4096))
        sock.setsockopt(SOL_XDP, XDP_UMEM_REG, area + bytes(8))
        sock.setsockopt(SOL_XDP, XDP_UMEM_FILL_RING, 16)
        sock.setsockopt(SOL_XDP, XDP_RX_RING, 16)
        yield sock
    del view
    memory.close()


@pytest.mark.bpf_requires("xskmap")
def test_an_xskmap(make, xdp_socket):
    m = make("XSKMAP", value="__u32").maps.the_map
    assert (str(m.type), m.max_entries, m.key_size, m.value_size) == ("xskmap", 4, 4, 4)
    m[1] = xdp_socket
    m[2] = xdp_socket.fileno()
    del m[1]
    with pytest.raises(
        UnsupportedError, match=r"cannot read map 'the_map' \(xskmap\): the kernel does not show"
    ):
        m[2]
    m.clear()
    with (
        socket.socket() as tcp,
        pytest.raises(MapError, match="not an AF_XDP socket, or it has no receive ring"),
    ):
        m[0] = tcp
    with open(os.devnull) as file, pytest.raises(MapTypeError, match="is /dev/null, not an AF_XDP socket"):
        m[0] = file
    with pytest.raises(MapError, match="its indices go from 0 to 3"):
        m[4] = xdp_socket
