"""Tests attaching to interfaces, cgroups and network namespaces."""

import errno
import socket
from pathlib import Path

import pytest
from traffic import COUNT, frame, is_ours

from pytest_bpfmaps import AttachError
from pytest_bpfmaps.attach.link_types import LinkType


def udp_echo(address):
    """Sends a UDP datagram to this process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.settimeout(60)
        sock.sendto(b"x" * 100, sock.getsockname())
        return sock.recv(200)


class TestXdp:
    @pytest.fixture
    def programs(self, load_code):
        loaded = load_code(
            COUNT.format(section="xdp", ctx="struct xdp_md", verdict="XDP_PASS", other="XDP_DROP")
        )
        loaded.programs.loaded = loaded
        return loaded

    @pytest.mark.parametrize("mode", [{}, {"mode": "skb"}, {"mode": "native"}])
    def test_on_an_interface_in_its_namespace(self, programs, veth, mode):
        with programs.programs.count.attach(interface=veth.far, **mode) as link:
            veth.near.send(frame(veth))
            with veth.far.netns.netlink() as ip:
                shown = ip.link("get", index=veth.far.index)[0].get_nested("IFLA_XDP", "IFLA_XDP_ATTACHED")
            assert shown == ("xdpgeneric" if mode == {"mode": "skb"} else "xdp")
            assert link.info.type is LinkType.XDP
            assert link.info.target == {"ifindex": veth.far.index}
            assert link.info.program_id == programs.programs.count.id
        assert programs.globals.seen == 1
        veth.near.send(frame(veth))
        assert programs.globals.seen == 1

    @pytest.mark.bpf_requires(helper="bpf_xdp_get_buff_len")  # this helper came with fragments
    def test_packets_of_several_pages(self, bpf, load_code, bpf_netns):
        code = """
        __u64 size;
        SEC("xdp.frags") int measure(struct xdp_md *ctx) { size = bpf_xdp_get_buff_len(ctx); return 2; }
        SEC("xdp") int whole(struct xdp_md *ctx) { return 2; }
        """
        obj, veth = load_code(code), bpf_netns().veth_to(bpf_netns(), mtu=9000)
        with obj.programs.measure.attach(interface=veth.far, mode="native"):
            veth.near.send(frame(veth, bytes(8000)))
            bpf.wait_until(lambda: obj.globals.size == 8014)
        with pytest.raises(AttachError, match="or a smaller MTU"):
            obj.programs.whole.attach(interface=veth.far, mode="native")

    def test_by_name_and_by_index(self, programs, veth):
        def counts_there(**target):
            before = programs.globals.seen
            with programs.programs.count.attach(**target) as link:
                assert link.info.target == {"ifindex": veth.far.index}
                veth.near.send(frame(veth))
                return programs.globals.seen == before + 1

        with veth.far.enter():
            assert counts_there(interface="veth0")
            assert counts_there(interface=veth.far.index)
        assert counts_there(interface="veth0", netns=veth.far.netns)
        assert counts_there(interface="veth0", netns=veth.far.netns.path)

    def test_another_program_takes_its_place(self, bpf, programs, veth):
        def payloads():
            return [bytes(p[14:15]) for p in arrived if is_ours(p)]

        link = programs.programs.count.attach(interface=veth.far)
        with veth.far.sniff() as arrived:
            veth.near.send(frame(veth, b"1"))
            bpf.wait_until(payloads)
            link.update(programs.programs.drop)
            assert link.info.program_id == programs.programs.drop.id
            veth.near.send(frame(veth, b"2"))
            link.detach()
            veth.near.send(frame(veth, b"3"))
            bpf.wait_until(lambda: len(payloads()) > 1)
        assert payloads() == [b"1", b"3"]
        with pytest.raises(AttachError, match="detached already"):
            _ = link.info

    def test_an_occupied_interface_says_by_what(self, programs, veth):
        programs.programs.count.attach(interface=veth.far)
        with pytest.raises(
            AttachError, match=r"(?s)'drop' .* to interface=.*EBUSY.*'count' \(id \d+\).*detach"
        ) as e:
            programs.programs.drop.attach(interface=veth.far)
        assert e.value.errno == errno.EBUSY

    def test_an_unknown_interface_names_the_closest(self, programs, veth):
        refusal = r"(?s)interface='veht0'.*no interface of that name.*'veth0'\?"
        with pytest.raises(AttachError, match=refusal):
            programs.programs.count.attach(interface="veht0", netns=veth.near.netns)

    def test_no_native_mode_names_the_other(self, programs, bpf_netns):
        with pytest.raises(AttachError, match=r'(?s)no native XDP.*mode="skb"'):
            programs.programs.count.attach(interface=bpf_netns().interface("lo"), mode="native")

    def test_words_that_mean_nothing_here(self, programs, veth):
        attach = programs.programs.count.attach
        with pytest.raises(AttachError, match=r"(?s)no mode 'generic'.*there are: native, offload, skb"):
            attach(interface=veth.far, mode="generic")
        with pytest.raises(AttachError, match="leave out direction"):
            attach(interface=veth.far, direction="ingress")
        with pytest.raises(AttachError, match=r"(?s)interface= is list.*an interface of bpf_netns"):
            attach(interface=[])
        with pytest.raises(
            AttachError, match=r"(?s)programs of type xdp do not go there.*attach\(interface="
        ):
            attach(cgroup="/")

    def test_pin_keeps_it_attached(self, bpf, programs, veth, bpffs):
        link = programs.programs.count.attach(interface=veth.far)
        link.pin(bpffs / "link")
        link.close()
        veth.near.send(frame(veth))
        assert programs.globals.seen == 1
        (bpffs / "link").unlink()

        def is_detached():  # the kernel detaches with a delay
            before = programs.globals.seen
            veth.near.send(frame(veth))
            return programs.globals.seen == before

        bpf.wait_until(is_detached)

    def test_unpin(self, programs, veth, bpffs):
        link = programs.programs.count.attach(interface=veth.far)
        with pytest.raises(AttachError, match="not pinned"):
            link.unpin()
        link.pin(bpffs / "link")
        link.unpin()
        assert not (bpffs / "link").exists()


class TestCgroup:
    def test_skb_by_its_section_or_a_direction(self, load_code, bpf_cgroup, bpf_netns):
        loaded = load_code("""
            __u64 out, in;
            SEC("cgroup_skb/egress") int count_out(struct __sk_buff *skb)
            { __sync_fetch_and_add(&out, skb->len); return 1; }
            SEC("cgroup/skb") int count_in(struct __sk_buff *skb)
            { __sync_fetch_and_add(&in, skb->len); return 1; }
        """)
        link = loaded.programs.count_out.attach(cgroup=bpf_cgroup)
        assert link.info.target == {"cgroup_id": bpf_cgroup.id, "attach_type": "cgroup_inet_egress"}
        loaded.programs.count_in.attach(cgroup=bpf_cgroup.path, direction="ingress")
        with bpf_netns().enter():
            udp_echo("127.0.0.1")
            assert (loaded.globals.out, loaded.globals["in"]) == (0, 0)
            with bpf_cgroup.enter():
                udp_echo("127.0.0.1")
        assert (loaded.globals.out, loaded.globals["in"]) == (128, 128)
        with pytest.raises(AttachError, match="its section names no direction"):
            loaded.programs.count_in.attach(cgroup=bpf_cgroup)

    def test_sock_sock_addr_and_sockopt(self, load_code, bpf_cgroup):
        loaded = load_code("""
            __u32 made, port, level;
            SEC("cgroup/sock_create") int create(struct bpf_sock *sk) { made++; return 1; }
            SEC("cgroup/connect4") int connect(struct bpf_sock_addr *ctx) { port = ctx->user_port; return 0; }
            SEC("cgroup/setsockopt") int option(struct bpf_sockopt *ctx) { level = ctx->level; return 1; }
        """)
        links = [p.attach(cgroup=bpf_cgroup.fd) for p in loaded.programs]
        with bpf_cgroup.enter(), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            with pytest.raises(PermissionError):
                sock.connect(("127.0.0.1", 1))
        made = loaded.globals
        assert (made.made, made.port, made.level) == (1, socket.htons(1), socket.SOL_SOCKET)
        types = [link.info.target["attach_type"] for link in links]
        assert types == ["cgroup_inet_sock_create", "cgroup_inet4_connect", "cgroup_setsockopt"]

    def test_sysctl_and_device(self, load_code, bpf_cgroup, bpf_process):
        loaded = load_code("""
            __u32 reads;
            SEC("cgroup/sysctl") int sysctl(struct bpf_sysctl *ctx) { reads += !ctx->write; return 1; }
            SEC("cgroup/dev") int device(struct bpf_cgroup_dev_ctx *ctx)
            { return !(ctx->major == 1 && ctx->minor == 5); }
        """)
        for program in loaded.programs:
            program.attach(cgroup=bpf_cgroup)
        with bpf_cgroup.enter():
            Path("/proc/sys/kernel/ostype").read_text()
            Path("/dev/null").read_bytes()
            with pytest.raises(PermissionError):
                Path("/dev/zero").open("rb").close()
        assert loaded.globals.reads >= 1

    def test_sockops(self, load_code, bpf_cgroup, bpf_netns):
        loaded = load_code("""
            __u32 connected;
            SEC("sockops") int count(struct bpf_sock_ops *ctx)
            { connected += ctx->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB; return 1; }
        """)
        loaded.programs.count.attach(cgroup=bpf_cgroup)
        with bpf_netns().enter(), socket.create_server(("127.0.0.1", 0)) as server, bpf_cgroup.enter():
            socket.create_connection(server.getsockname()).close()
        assert loaded.globals.connected == 1

    @pytest.mark.bpf_requires(kfunc="bpf_sock_addr_set_sun_path")  # this kfunc came with these hooks
    def test_unix_sockets(self, load_code, bpf_cgroup, tmp_path):
        code = """
        __u64 seen;
        SEC("cgroup/connect_unix") int count(struct bpf_sock_addr *ctx) { seen++; return 1; }
        """
        obj = load_code(code)
        path = str(tmp_path / "socket")
        with bpf_cgroup.enter():  # a socket belongs to the group in which it was made
            listening, calling = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with obj.programs.count.attach(cgroup=bpf_cgroup), listening, calling:
            listening.bind(path)
            listening.listen()
            calling.connect(path)
        assert obj.globals.seen == 1

    def test_no_cgroup_2_folder(self, load_code, tmp_path):
        program = load_code('SEC("cgroup_skb/egress") int pass(void *ctx) { return 1; }').programs["pass"]
        with pytest.raises(AttachError, match=r"(?s)EBADF.*give a folder of a cgroup v2"):
            program.attach(cgroup=tmp_path)
        with pytest.raises(AttachError, match=r"(?s)cgroup='/no/such'.*no 'no' in / \(ENOENT\).*bpf_cgroup"):
            program.attach(cgroup="/no/such")
        with pytest.raises(AttachError, match="cgroup= is NoneType\n  -> give a path, a descriptor"):
            program.attach(cgroup=None)
        with pytest.raises(AttachError, match=r"(?s)type cgroup_skb do not go there.*attach\(cgroup="):
            program.attach(interface="lo")


class TestNetns:
    def test_sk_lookup_sends_all_ports_to_one_socket(self, load_code, bpf_netns):
        loaded = load_code("""
            struct {
                __uint(type, BPF_MAP_TYPE_SOCKMAP);
                __uint(max_entries, 1);
                __type(key, __u32);
                __type(value, __u64);
            } target SEC(".maps");
            SEC("sk_lookup") int pick(struct bpf_sk_lookup *ctx)
            {
                __u32 zero = 0;
                struct bpf_sock *sk = bpf_map_lookup_elem(&target, &zero);
                if (!sk)
                    return SK_PASS;
                long err = bpf_sk_assign(ctx, sk, 0);
                bpf_sk_release(sk);
                return err ? SK_DROP : SK_PASS;
            }
        """)
        netns = bpf_netns()
        link = loaded.programs.pick.attach(netns=netns)
        assert link.info.target == {"netns_inode": netns.inode, "attach_type": "sk_lookup"}
        with netns.enter(), socket.create_server(("127.0.0.1", 1000)) as server:
            loaded.maps.target.update_elem(0, server.fileno())
            for port in (1, 79, 65535):
                socket.create_connection(("127.0.0.1", port), timeout=60).close()
                server.accept()[0].close()
            link.close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", 79), timeout=60)

    def test_a_second_flow_dissector_is_refused(self, load_code, bpf_netns):
        loaded = load_code('SEC("flow_dissector") int flow(struct __sk_buff *skb) { return BPF_OK; }')
        netns = bpf_netns()
        link = loaded.programs.flow.attach(netns=netns.path)
        with pytest.raises(AttachError, match=r"E2BIG|EEXIST|EBUSY"):
            loaded.programs.flow.attach(netns=netns)
        link.close()
        loaded.programs.flow.attach(netns=netns)

    def test_what_is_no_namespace(self, load_code, tmp_path):
        program = load_code(
            'SEC("flow_dissector") int flow(struct __sk_buff *skb) { return BPF_OK; }'
        ).programs.flow
        with pytest.raises(AttachError, match=r"(?s)EINVAL.*give a network namespace"):
            program.attach(netns=tmp_path)
        with pytest.raises(AttachError, match=r"(?s)type flow_dissector do not go there.*attach\(netns="):
            program.attach(socket=3)
