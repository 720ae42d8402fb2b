"""Tests attaching tc programs, by tcx links and as filters, and netfilter programs."""

import errno
import socket

import pytest
from traffic import COUNT, frame

from pytest_bpfmaps import AttachError, TriggerError, UnsupportedError
from pytest_bpfmaps.attach import tc
from pytest_bpfmaps.attach.link_types import LinkType


class TestTc:
    @pytest.fixture
    def programs(self, load_code):
        return load_code(COUNT.format(section="tc", ctx="struct __sk_buff", verdict=-1, other=2))

    def test_each_direction_sees_its_own(self, programs, veth):
        with programs.programs.count.attach(interface=veth.far, direction="ingress"):
            veth.near.send(frame(veth))
            assert programs.globals.seen == 1
            veth.far.send(frame(veth))
            assert programs.globals.seen == 1
        with programs.programs.count.attach(interface=veth.far, direction="egress"):
            veth.near.send(frame(veth))
            assert programs.globals.seen == 1
            veth.far.send(frame(veth))
            assert programs.globals.seen == 2
        veth.far.send(frame(veth))
        assert programs.globals.seen == 2

    @pytest.mark.parametrize("how", [{}, {"priority": 7}])
    def test_another_program_takes_its_place(self, programs, veth, how):
        link = programs.programs.count.attach(interface=veth.far, direction="ingress", **how)
        link.update(programs.programs.drop)
        with veth.far.sniff(outgoing=True) as arrived:
            veth.near.send(frame(veth))
            link.close()
            veth.near.send(frame(veth))
            arrived.wait()
        assert programs.globals.seen == 0

    def test_a_frame_that_is_dropped_at_the_egress_says_so(self, programs, veth):
        with programs.programs.drop.attach(interface=veth.near, direction="egress"):
            with pytest.raises(TriggerError, match=r"ENOBUFS: a tc program .* dropped the frame") as refused:
                veth.near.send(frame(veth))
            assert refused.value.errno == errno.ENOBUFS
        with veth.far.sniff() as arrived:
            veth.near.send(frame(veth))
            arrived.wait()

    @pytest.mark.bpf_requires("tcx/ingress")
    def test_links_run_in_order(self, load_code, veth):
        code = """
        __u64 order;
        SEC("tc") int one(struct __sk_buff *skb) { order = order * 10 + 1; return -1; }
        SEC("tc") int two(struct __sk_buff *skb) { order = order * 10 + 2; return -1; }
        SEC("tc") int three(struct __sk_buff *skb) { order = order * 10 + 3; return -1; }
        SEC("tc") int four(struct __sk_buff *skb) { order = order * 10 + 4; return -1; }
        """
        obj = load_code(code)
        one, two, three, four = obj.programs
        where = {"interface": veth.far, "direction": "ingress"}
        link = one.attach(**where)
        two.attach(**where, before=link)
        three.attach(**where, after=two)
        four.attach(**where, before=True)
        veth.near.send(frame(veth))
        assert obj.globals.order == 4231
        with pytest.raises(AttachError, match="before= and after= take a link or a program"):
            one.attach(**where, before="first")
        with pytest.raises(AttachError, match="only filters have a priority; tcx links have an order"):
            one.attach(**where, before=link, priority=1)

    def test_filters_run_by_priority(self, load_code, veth):
        first, second = (
            load_code(COUNT.format(section="tc", ctx="struct __sk_buff", verdict=v, other=0)) for v in (2, 0)
        )
        second.programs.count.attach(interface=veth.far, direction="ingress", priority=20)
        link = first.programs.count.attach(interface=veth.far, direction="ingress", priority=10)
        veth.near.send(frame(veth))
        assert (first.globals.seen, second.globals.seen) == (1, 0)
        link.close()
        veth.near.send(frame(veth))
        assert (first.globals.seen, second.globals.seen) == (1, 1)

    def test_the_qdisc_goes_with_the_last_filter(self, programs, veth):
        def qdiscs():
            with veth.far.netns.netlink() as ip:
                return [q.get("kind") for q in ip.get_qdiscs(index=veth.far.index)]

        links = [
            programs.programs.count.attach(interface=veth.far, direction=d, priority=1)
            for d in ("ingress", "egress")
        ]
        assert "clsact" in qdiscs()
        links[0].close()
        assert "clsact" in qdiscs()
        links[1].close()
        assert "clsact" not in qdiscs()
        assert not tc._filters

    def test_somebody_elses_qdisc_stays(self, programs, veth):
        with veth.far.netns.netlink() as ip:
            ip.tc("add", "clsact", index=veth.far.index)
        programs.programs.count.attach(interface=veth.far, direction="ingress", priority=1).close()
        with veth.far.netns.netlink() as ip:
            assert "clsact" in [q.get("kind") for q in ip.get_qdiscs(index=veth.far.index)]

    def test_an_occupied_place_is_refused(self, programs, veth):
        attach, where = programs.programs.count.attach, {"interface": veth.far, "direction": "ingress"}
        attach(**where, priority=5, handle=1)
        with pytest.raises(AttachError, match=r"'drop' .* EEXIST") as e:
            programs.programs.drop.attach(**where, priority=5, handle=1)
        assert e.value.errno == errno.EEXIST

    def test_close_after_the_interface_is_gone(self, programs, veth):
        link = programs.programs.count.attach(interface=veth.far, direction="ingress", priority=5)
        with veth.near.netns.netlink() as ip:
            ip.link("del", index=veth.near.index)
        link.close()
        assert not tc._filters

    def test_a_filter_is_no_link(self, programs, veth):
        link = programs.programs.count.attach(interface=veth.far, direction="ingress", priority=5)
        for use in (lambda: link.info, lambda: link.pin("/x"), link.unpin, lambda: link.fd):
            with pytest.raises(UnsupportedError, match=r"count.*clsact qdisc.*without a link"):
                use()

    def test_without_tcx_it_is_a_filter(self, programs, veth, monkeypatch):
        monkeypatch.setattr(tc, "create_link", lambda *_: -errno.EINVAL)
        with programs.programs.count.attach(interface=veth.far, direction="ingress") as link:
            veth.near.send(frame(veth))
            with pytest.raises(UnsupportedError):
                _ = link.fd
        assert programs.globals.seen == 1

    def test_a_direction_is_needed(self, programs, veth):
        with pytest.raises(AttachError, match='give direction="ingress" or direction="egress"'):
            programs.programs.count.attach(interface=veth.far)
        with pytest.raises(AttachError, match=r"(?s)no direction 'in'"):
            programs.programs.count.attach(interface=veth.far, direction="in")
        with pytest.raises(AttachError, match="leave out mode"):
            programs.programs.count.attach(interface=veth.far, direction="ingress", mode="skb")

    def test_a_section_that_asks_for_tcx_makes_no_filter(self, load_code, veth, monkeypatch):
        monkeypatch.setattr(tc, "create_link", lambda *_: -errno.EINVAL)
        loaded = load_code(COUNT.format(section="tcx/egress", ctx="struct __sk_buff", verdict=-1, other=2))
        attach = loaded.programs.count.attach
        with pytest.raises(
            AttachError, match=r"no tcx links .*\n.*SEC\(\"tc\"\) and direction=\"egress\""
        ) as e:
            attach(interface=veth.far)
        assert (e.value.errno, e.value.section) == (errno.EINVAL, "tcx/egress")  # by which a test is skipped
        attach(interface=veth.far, priority=1)  # what bpf_tc_attach() does

    @pytest.mark.bpf_requires("tcx/egress")
    def test_the_section_may_name_the_direction(self, load_code, veth):
        loaded = load_code(COUNT.format(section="tcx/egress", ctx="struct __sk_buff", verdict=-1, other=2))
        loaded.programs.count.attach(interface=veth.far)
        veth.near.send(frame(veth))
        veth.far.send(frame(veth))
        assert loaded.globals.seen == 1


@pytest.mark.bpf_requires("netfilter")
class TestNetfilter:
    @pytest.fixture
    def program(self, load_code):
        return load_code('SEC("netfilter") int drop(void *ctx) { return 0; }').programs.drop

    def test_a_hook_of_a_namespace(self, program, bpf_netns):
        netns = bpf_netns()
        with netns.enter(), socket.socket(type=socket.SOCK_DGRAM) as sock:
            with program.attach(hook="output", priority=-5) as link:
                assert link.info.type is LinkType.NETFILTER
                assert link.info.target == {"family": 2, "hook": 3, "priority": -5}
                with pytest.raises(PermissionError):
                    sock.sendto(b"x", ("127.0.0.1", 9))
            sock.sendto(b"x", ("127.0.0.1", 9))

    def test_refusals(self, program, bpf_netns):
        netns = bpf_netns()
        program.attach(hook="input", family="ipv6", netns=netns)
        with pytest.raises(AttachError, match=r"(?s)hook='input'.*EBUSY.*no other program at this hook"):
            program.attach(hook="input", family="ipv6", netns=netns)
        with pytest.raises(AttachError, match=r"(?s)no hook 'in'.*'input'"):
            program.attach(hook="in", netns=netns)
