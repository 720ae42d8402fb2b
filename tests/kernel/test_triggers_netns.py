"""Tests network namespaces for tests: what is in them, what runs in them, and that they are removed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from ipaddress import ip_interface
from pathlib import Path

import pytest

from pytest_bpfmaps import ClosedError, NameLookupError, TriggerError, UnsupportedError
from pytest_bpfmaps.triggers import netns as netns_module
from pytest_bpfmaps.triggers.netns import NetNsFactory

RUN = Path("/run/netns")


def here():
    return os.stat("/proc/thread-self/ns/net").st_ino


def published(pid=""):
    """Returns the names of namespaces, of one process or of all runs on this machine."""
    return {p.name for p in RUN.glob(f"bpfmaps-*{pid}-*")} if RUN.exists() else set()


class TestNamespace:
    def test_enter_is_for_this_thread_and_ends(self, bpf_netns):
        home, inner, outer = here(), bpf_netns(), bpf_netns()
        seen = []
        with outer.enter():
            assert here() == outer.inode
            with inner.enter():
                assert here() == inner.inode
            assert here() == outer.inode
        assert here() == home
        with outer.enter():
            other = threading.Thread(target=lambda: seen.append(here()))
        other.start()
        other.join()
        assert seen == [home]

    def test_enter_ends_with_an_exception_too(self, bpf_netns):
        home = here()
        with pytest.raises(ZeroDivisionError), bpf_netns().enter():
            _ = 1 / 0
        assert here() == home

    def test_a_new_one_has_a_loopback_that_is_up_and_nothing_else(self, bpf_netns):
        netns = bpf_netns("lonely")
        assert [i.name for i in netns.interfaces] == ["lo"]
        assert netns.interface("lo").is_up
        assert netns.addresses == []
        with netns.enter(), socket.create_server(("127.0.0.1", 7)) as server:
            socket.create_connection(server.getsockname(), timeout=60).close()

    def test_ip_netns_finds_it_by_its_name(self, bpf_netns):
        netns = bpf_netns("server")
        assert netns.name in published()
        assert f"-{os.getpid()}-" in netns.name
        assert netns.name.endswith("-server")
        assert netns.path.stat().st_ino == netns.inode

    def test_names_tell_xdist_workers_apart(self, bpf_netns, monkeypatch):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw7")
        assert bpf_netns().name.startswith("bpfmaps-gw7-")

    def test_sysctl_is_its_own(self, bpf_netns):
        one, two = bpf_netns(), bpf_netns()
        before = one.sysctl("net.ipv4.ip_forward", 1)
        assert one.sysctl("net.ipv4.ip_forward") == "1"
        assert two.sysctl("net.ipv4.ip_forward") == before
        with pytest.raises(TriggerError, match=r"cannot set net\.ipv4\.no_such"):
            one.sysctl("net.ipv4.no_such", 1)
        with pytest.raises(TriggerError, match=r"cannot read net\.ipv4\.no_such"):
            one.sysctl("net.ipv4.no_such")

    def test_use_after_teardown_is_an_error(self, bpf_netns):
        netns = bpf_netns()
        netns.close()
        netns.close()
        with pytest.raises(ClosedError, match="torn down already"), netns.enter():
            pass


class TestWhatRunsInside:
    def test_subprocesses(self, bpf_netns):
        netns = bpf_netns()
        code = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
        done = netns.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
        assert int(done.stdout) == netns.inode

        running = netns.Popen(["sleep", "60"], stdout=subprocess.PIPE)
        assert os.stat(f"/proc/{running.pid}/ns/net").st_ino == netns.inode
        netns.close()
        assert running.returncode == -signal.SIGKILL

    def test_a_callable(self, bpf_netns):
        netns = bpf_netns()
        assert netns.call(here) == netns.inode
        assert netns.call(max, 3, 4, key=lambda n: -n) == 3

    def test_a_thread(self, bpf_netns):
        netns = bpf_netns()
        assert netns.thread(here).result(timeout=300) == netns.inode
        with pytest.raises(ZeroDivisionError):
            netns.thread(lambda: 1 / 0).result(timeout=300)

    def test_a_thread_that_does_not_end_is_named(self, bpf_netns, monkeypatch):
        monkeypatch.setattr(netns_module, "timeout_scale", lambda: 0.01)
        netns, end = bpf_netns(), threading.Event()

        def wait_for_ever():
            end.wait()

        future = netns.thread(wait_for_ever)
        with pytest.raises(TriggerError, match=r"wait_for_ever\(\) still runs in a thread inside"):
            netns.close()
        end.set()
        future.result(timeout=300)


class TestInterfaces:
    def test_veth_connects_with_addresses_of_both_families(self, bpf_netns):
        left, right = bpf_netns("left"), bpf_netns("right")
        near, far = left.veth_to(right)
        assert (near.netns, far.netns) == (left, right)
        assert near.mac != far.mac
        assert left.addresses == near.addresses == [ip_interface(a) for a in ("10.0.1.1/24", "fd00:1::1/64")]
        for family, address in ((socket.AF_INET, far.ipv4), (socket.AF_INET6, far.ipv6)):
            with right.enter():
                server = socket.create_server((str(address), 80), family=family)
            with server, left.enter():
                socket.create_connection((str(address), 80), timeout=300).close()

    def test_several_pairs_have_names_and_networks_of_their_own(self, bpf_netns):
        left, right = bpf_netns(), bpf_netns()
        pairs = [left.veth_to(right) for _ in range(3)]
        assert [p.near.name for p in pairs] == ["veth0", "veth1", "veth2"]
        assert len({p.near.addresses[0].network for p in pairs}) == 3

    def test_both_ends_in_one_namespace(self, bpf_netns):
        netns = bpf_netns()
        near, far = netns.veth_to(netns)
        assert {i.name for i in netns.interfaces} == {"lo", near.name, far.name}

    def test_chosen_names_addresses_and_mtu(self, bpf_netns):
        left, right = bpf_netns(), bpf_netns()
        near, far = left.veth_to(
            right, names=("wan", None), addresses=[("192.0.2.1/30", None), (None, "2001:db8::2/64")], mtu=3000
        )
        assert (near.name, near.mtu, far.name, far.mtu) == ("wan", 3000, "veth0", 3000)
        assert [str(a) for a in near.addresses] == ["192.0.2.1/30"]
        assert [str(a) for a in far.addresses] == ["2001:db8::2/64"]
        with pytest.raises(TriggerError, match="it has no IPv6 address"):
            _ = near.ipv6
        near.mtu, near.is_up = 1400, False
        near.add_address("192.0.2.9/32")
        assert (near.mtu, near.is_up) == (1400, False)
        assert [str(a) for a in near.addresses] == ["192.0.2.1/30", "192.0.2.9/32"]

    def test_unknown_interface_names_the_closest(self, bpf_netns):
        left = bpf_netns()
        left.veth_to(bpf_netns())
        with pytest.raises(NameLookupError, match=r"(?s)no interface 'veht0'.*did you mean 'veth0'"):
            left.interface("veht0")

    def test_what_the_kernel_refuses_names_the_object(self, bpf_netns):
        left, right = bpf_netns("left"), bpf_netns("right")
        left.veth_to(right, names=("eth", "eth"))
        with pytest.raises(
            TriggerError, match=r"cannot connect .*-left to .*-right by 'eth' and 'eth'"
        ) as caught:
            left.veth_to(right, names=("eth", "eth"))
        assert caught.value.errno == 17
        with pytest.raises(TriggerError, match=r"cannot set mtu=1 of interface 'eth'"):
            left.interface("eth").mtu = 1

    def test_a_router_between_two_networks(self, bpf_netns):
        client, router, server = bpf_netns("client"), bpf_netns("router"), bpf_netns("server")
        inside, outside = client.veth_to(router), router.veth_to(server)
        router.sysctl("net.ipv4.ip_forward", 1)
        client.add_route("default", via=inside.far.ipv4)
        server.add_route("10.0.1.0/24", via=outside.near.ipv4, interface=outside.far)
        with server.enter():
            listening = socket.create_server((str(outside.far.ipv4), 80))
        with listening, client.enter():
            socket.create_connection(listening.getsockname(), timeout=300).close()

    def test_a_bridge_between_two_namespaces(self, bpf_netns):
        left, right, switch = bpf_netns("left"), bpf_netns("right"), bpf_netns("switch")
        one = left.veth_to(switch, addresses=[("192.0.2.1/24", None)])
        two = right.veth_to(switch, addresses=[("192.0.2.2/24", None)])
        bridge = switch.add_bridge("br0", [one.far, two.far])
        assert bridge.is_up
        with right.enter():
            listening = socket.create_server(("192.0.2.2", 80))
        with listening, left.enter():
            socket.create_connection(("192.0.2.2", 80), timeout=300).close()

    def test_pyroute2_does_the_rest(self, bpf_netns):
        netns = bpf_netns()
        with netns.netlink() as ip:
            ip.link("add", ifname="one", kind="veth", peer={"ifname": "other"})
        assert netns.interface("other").mtu == 1500


def frame(far, near, payload=b"", tag=b""):
    """Returns an Ethernet frame of an experimental type, which no stack answers."""
    macs = bytes.fromhex(far.mac.replace(":", "") + near.mac.replace(":", ""))
    return macs + tag + b"\x88\xb5" + payload.ljust(46, b"\0")


class TestPackets:
    @pytest.fixture
    def veth(self, bpf_netns):
        return bpf_netns("left").veth_to(bpf_netns("right"))

    def test_what_is_sent_at_one_end_arrives_at_the_other(self, veth):
        packets = [frame(veth.far, veth.near, bytes([i])) for i in range(100)]
        with veth.far.sniff() as seen:
            veth.near.send(*packets)
            assert seen.wait(100) == packets
        assert seen == packets
        assert (seen[0], seen[-2:], len(seen), seen.lost) == (packets[0], packets[-2:], 100, 0)

    def test_a_new_veth_is_silent(self, veth):
        with veth.far.sniff(outgoing=True) as seen:
            seen.expect_none(within=0.3)

    def test_outgoing_frames_are_seen_on_request(self, veth):
        with veth.near.sniff() as arriving, veth.near.sniff(outgoing=True) as all_of_them:
            veth.near.send(frame(veth.far, veth.near, b"out"))
            all_of_them.wait()
        assert (len(arriving), len(all_of_them)) == (0, 1)

    def test_a_vlan_tag_is_where_it_was(self, veth):
        tagged = frame(veth.far, veth.near, b"tagged", tag=b"\x81\x00\x00\x05")
        with veth.far.sniff() as seen:
            veth.near.send(tagged)
            assert seen.wait() == [tagged]

    def test_scapy_packets(self, veth):
        from scapy.layers.inet import IP, UDP
        from scapy.layers.l2 import Ether

        packet = (
            Ether(src=veth.near.mac, dst=veth.far.mac) / IP(dst=str(veth.far.ipv4)) / UDP(dport=9) / b"hi"
        )
        with veth.far.sniff(Ether) as seen:
            veth.near.send(packet)
            (arrived,) = seen.wait(match=lambda p: UDP in p)
        assert (arrived[UDP].dport, arrived[UDP].payload.load[:2]) == (9, b"hi")

    def test_waiting_in_vain_shows_what_came(self, veth):
        with veth.far.sniff() as seen:
            veth.near.send(frame(veth.far, veth.near, b"other"))
            seen.wait()
            with pytest.raises(
                AssertionError,
                match=r"(?s)waited 0.01 s .*for 1 packet at interface 'veth0'.*"
                r"0 of 1 fit.*60 bytes: 0262 7000 0102",
            ):
                seen.wait(match=lambda p: b"mine" in p, timeout=0.01)
            with pytest.raises(
                AssertionError, match=r"expected no packet at interface 'veth0'.*one came: 60"
            ):
                seen.expect_none()
        assert seen.wait() == [seen[0]]

    def test_a_frame_larger_than_the_mtu_is_refused(self, veth):
        with pytest.raises(TriggerError, match=r"cannot send 3014 bytes out of interface 'veth0'"):
            veth.near.send(frame(veth.far, veth.near, bytes(3000)))


class TestNothingIsLeft:
    @pytest.fixture(autouse=True)
    def whatever_is_made_once_per_process(self, bpf_netns):
        """The pipe to the reaper stays open after the first namespace."""
        bpf_netns()

    def test_after_teardown(self):
        descriptors, names = set(os.listdir("/proc/self/fd")), published(os.getpid())
        with NetNsFactory() as factory:
            left, right = factory("left"), factory("right")
            far = left.veth_to(right).far
            far.sniff()
            path = Path(f"/proc/self/fd/{left.fileno()}")
            assert path.exists()
        assert set(os.listdir("/proc/self/fd")) == descriptors
        assert published(os.getpid()) == names

    def test_after_a_failure_in_the_middle(self, monkeypatch):
        def interrupted(self):
            raise KeyboardInterrupt

        descriptors, names = set(os.listdir("/proc/self/fd")), published(os.getpid())
        with NetNsFactory() as factory:
            monkeypatch.setattr(netns_module.NetNs, "_prepare", interrupted)
            with pytest.raises(KeyboardInterrupt):
                factory()
        assert set(os.listdir("/proc/self/fd")) == descriptors
        assert published(os.getpid()) == names

    def test_after_a_killed_run_and_the_next_one(self):
        code = (
            "import os, sys\n"
            "from pytest_bpfmaps.triggers.netns import NetNsFactory\n"
            "left, right = (f := NetNsFactory())(), f()\n"
            "left.veth_to(right)\n"
            "print(left.inode, left.name, flush=True)\n"
            "sys.stdin.read()\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", code], **pipes) as killed:
            inode, name = killed.stdout.readline().split()
            assert (RUN / name).stat().st_ino == int(inode)
            killed.kill()
        assert not (RUN / name).exists()  # the kernel has released it
        NetNsFactory().close()
        assert name not in published()

    def test_names_of_living_runs_stay(self, bpf_netns):
        netns = bpf_netns()
        NetNsFactory().close()
        assert netns.name in published()


def test_under_a_running_event_loop(bpf_netns):
    left, right = bpf_netns(), bpf_netns()

    async def main():
        with pytest.raises(TriggerError, match=r"(?s)event loop runs in this thread.*asyncio\.to_thread"):
            left.veth_to(right)
        return await asyncio.to_thread(left.veth_to, right)

    assert asyncio.run(main()).near.netns is left


def test_without_pyroute2_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(UnsupportedError, match=r"(?s)pyroute2 is not installed.*pytest-bpfmaps\[net\]"):
        NetNsFactory()


def test_without_the_capability_the_message_says_so(bpf_netns):
    code = (
        "import os\n"
        "from pytest_bpfmaps import UnsupportedError\n"
        "from pytest_bpfmaps.triggers.netns import NetNsFactory\n"
        "factory = NetNsFactory()\n"
        "os.setuid(65534)\n"
        "try:\n    factory()\nexcept UnsupportedError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot make a network namespace: EPERM" in done.stdout
    assert "CAP_SYS_ADMIN: run as root" in done.stdout


def test_the_kernel_has_a_cookie_for_it(bpf_netns):
    netns = bpf_netns()
    try:
        assert netns.cookie not in (0, bpf_netns().cookie)
    except OSError as e:
        if e.errno != 92:  # ENOPROTOOPT: before Linux 5.14
            raise
        pytest.skip("this kernel has no SO_NETNS_COOKIE")


def test_waiting_takes_no_longer_than_the_packet(bpf_netns):
    near, far = bpf_netns().veth_to(bpf_netns())
    has_returned, was_before = threading.Event(), []

    def send():
        near.send(frame(far, near))
        was_before.append(has_returned.wait(300))

    with far.sniff() as seen:
        timer = threading.Timer(0.05, send)
        timer.start()
        seen.wait(timeout=600)
        has_returned.set()
        timer.join()
    assert was_before == [True]
