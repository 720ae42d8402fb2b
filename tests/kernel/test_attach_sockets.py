"""Tests attaching to sockets and to maps of sockets."""

import os
import socket

import pytest

from pytest_bpfmaps import AttachError


class TestSockets:
    def test_a_socket_filter_cuts_what_is_received(self, load_code, bpf_netns):
        program = load_code('SEC("socket") int cut(struct __sk_buff *skb) { return 8 + 4; }').programs.cut
        with bpf_netns().enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            with program.attach(socket=sock):
                sock.sendto(b"123456789", sock.getsockname())
                assert sock.recv(100) == b"1234"
            sock.sendto(b"123456789", sock.getsockname())
            assert sock.recv(100) == b"123456789"

    def test_reuseport_chooses_the_socket(self, load_code, bpf_netns):
        loaded = load_code("""
            struct {
                __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
                __uint(max_entries, 2);
                __type(key, __u32);
                __type(value, __u64);
            } group SEC(".maps");
            __u32 chosen;
            SEC("sk_reuseport") int choose(struct sk_reuseport_md *ctx)
            { return bpf_sk_select_reuseport(ctx, &group, &chosen, 0) ? SK_DROP : SK_PASS; }
        """)
        with bpf_netns().enter(), socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=2) as two:
            with pytest.raises(AttachError, match=r"(?s)EINVAL.*SO_REUSEPORT"):
                loaded.programs.choose.attach(socket=one)
            for index, sock in enumerate((one, two)):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(("127.0.0.1", 1000))
                sock.settimeout(60)
                loaded.maps.group.update_elem(index, sock.fileno())
            with loaded.programs.choose.attach(socket=two), socket.socket(type=socket.SOCK_DGRAM) as sender:
                for index, sock in ((0, one), (1, two), (0, one)):
                    loaded.globals.chosen = index
                    sender.sendto(bytes([index]), ("127.0.0.1", 1000))
                    assert sock.recv(1) == bytes([index])

    def test_a_closed_socket_does_not_matter(self, load_code):
        program = load_code('SEC("socket") int drop(struct __sk_buff *skb) { return 0; }').programs.drop
        sock = socket.socket()
        link = program.attach(socket=sock)
        fd = sock.fileno()
        sock.close()
        other = os.open("/dev/null", os.O_RDONLY)  # gets the closed descriptor's number
        assert other == fd
        link.close()
        os.close(other)

    def test_sk_msg_and_sk_skb_on_a_map_of_sockets(self, load_code, bpf_netns):
        loaded = load_code("""
            struct {
                __uint(type, BPF_MAP_TYPE_SOCKMAP);
                __uint(max_entries, 2);
                __type(key, __u32);
                __type(value, __u64);
            } sockets SEC(".maps");
            __u64 sent, got;
            SEC("sk_msg") int message(struct sk_msg_md *msg) { sent += msg->size; return SK_PASS; }
            SEC("sk_skb/stream_verdict") int verdict(struct __sk_buff *skb)
            { got += skb->len; return SK_PASS; }
        """)
        links = [p.attach(map=loaded.maps.sockets) for p in loaded.programs]
        assert self.talk(bpf_netns(), loaded.maps.sockets) == b"12345"
        assert (loaded.globals.sent, loaded.globals.got) == (5, 5)
        for link in links:
            link.close()
        assert self.talk(bpf_netns(), loaded.maps.sockets) == b"12345"
        assert (loaded.globals.sent, loaded.globals.got) == (5, 5)

    @pytest.mark.bpf_requires("sk_skb/verdict")
    @pytest.mark.filterwarnings("ignore::pytest_bpfmaps.PortabilityWarning")
    def test_what_sk_skb_verdict_stands_for(self, load_code, bpf_netns):
        loaded = load_code("""
            struct {
                __uint(type, BPF_MAP_TYPE_SOCKMAP);
                __uint(max_entries, 2);
                __type(key, __u32);
                __type(value, __u64);
            } sockets SEC(".maps");
            __u64 got;
            SEC("sk_skb/verdict") int verdict(struct __sk_buff *skb) { got += skb->len; return SK_PASS; }
        """)
        with loaded.programs.verdict.attach(map=loaded.maps.sockets):
            assert self.talk(bpf_netns(), loaded.maps.sockets) == b"12345"
        assert loaded.globals.got == 5

    @staticmethod
    def talk(netns, sockets):
        with netns.enter(), socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far = server.accept()[0]
        with near, far:
            far.settimeout(60)
            sockets.update_elem(0, near.fileno())
            sockets.update_elem(1, far.fileno())
            near.sendall(b"12345")
            return far.recv(5)

    def test_a_map_of_something_else(self, load_code):
        loaded = load_code("""
            struct {
                __uint(type, BPF_MAP_TYPE_ARRAY);
                __uint(max_entries, 2);
                __type(key, __u32);
                __type(value, __u64);
            } numbers SEC(".maps");
            SEC("sk_msg") int message(struct sk_msg_md *msg) { return SK_PASS; }
        """)
        with pytest.raises(AttachError, match=r"(?s)map=.*numbers.*type sockmap or sockhash"):
            loaded.programs.message.attach(map=loaded.maps.numbers)
