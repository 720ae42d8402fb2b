"""Network interfaces inside namespaces: pairs of them, addresses, packets."""

from __future__ import annotations

import contextlib
import errno
import itertools
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pytest_bpfmaps.errors import TriggerError
from pytest_bpfmaps.kernel.release import timeout_scale
from pytest_bpfmaps.triggers.netlink import refused_as
from pytest_bpfmaps.triggers.packets import Sniffer, open_packet_socket

Address = IPv4Interface | IPv6Interface
AddressPair = tuple[str | None, str | None]

_IFA_F_NODAD = 0x02  # <linux/if_addr.h>
_NUD_PERMANENT = 0x80
_SILENCE = 0.2  # seconds: the longest wait for the kernel's own packets


class Namespace(Protocol):
    """What an interface needs of the `NetNs` that it is in."""

    def enter(self) -> contextlib.AbstractContextManager[Any]: ...
    def netlink(self) -> contextlib.AbstractContextManager[Any]: ...
    def keep(self, closeable: contextlib.AbstractContextManager[Any]) -> None: ...
    def interface(self, name: str) -> Interface: ...
    def next_name(self) -> str: ...
    def fileno(self) -> int: ...


class Interface:
    """A network interface of a namespace; `Program.attach(interface=…)` takes it."""

    def __init__(self, netns: Namespace, name: str, index: int) -> None:
        self.netns = netns
        self.name = name
        self.index = index

    def enter(self) -> contextlib.AbstractContextManager[Any]:
        """Puts this thread into the interface's namespace, and back afterwards."""
        return self.netns.enter()

    @property
    def mac(self) -> str:
        """Its hardware address, ``02:62:70:00:01:01``."""
        return str(self._link().get("address"))

    @property
    def mtu(self) -> int:
        """The largest packet in bytes, without the Ethernet header. It can be set."""
        return int(self._link().get("mtu"))

    @mtu.setter
    def mtu(self, size: int) -> None:
        self._set(f"cannot set mtu={size} of", mtu=size)

    @property
    def is_up(self) -> bool:
        """Whether it is administratively up. It can be set."""
        return bool(self._link()["flags"] & 1)

    @is_up.setter
    def is_up(self, up: bool) -> None:
        self._set(f"cannot set {'up' if up else 'down'}", state="up" if up else "down")

    @property
    def addresses(self) -> list[Address]:
        """Its IPv4 and IPv6 addresses, each with its network."""
        with self.netns.netlink() as ip:
            found = [
                (a.get("local") or a.get("address"), a["prefixlen"])
                for a in ip.addr("dump", index=self.index)
            ]
        return [ip_interface(f"{address}/{length}") for address, length in found]

    @property
    def ipv4(self) -> IPv4Address:
        """Its first IPv4 address. Raises `TriggerError` when there is none."""
        return self._first(IPv4Interface)  # type: ignore[no-any-return]

    @property
    def ipv6(self) -> IPv6Address:
        """Its first IPv6 address. Raises `TriggerError` when there is none."""
        return self._first(IPv6Interface)  # type: ignore[no-any-return]

    def add_address(self, address: str) -> None:
        """Adds ``"192.0.2.1/24"`` or ``"2001:db8::1/64"``. It is usable at once (no duplicate detection)."""
        with refused_as(f"cannot add address {address} to", str(self)), self.netns.netlink() as ip:
            _add_address(ip, self.index, ip_interface(address))

    def send(self, *packets: Any) -> None:
        """Sends whole Ethernet frames out of the interface.

        `packets` are bytes, or what `bytes()` takes, such as a Scapy packet. Programs at its egress see them,
        and the other end of a veth receives them. Raises `TriggerError`, with ENOBUFS when a tc program at
        its egress drops the frame.
        """
        with self.enter(), open_packet_socket(self.name, receive=False) as out:
            for packet in packets:
                try:
                    out.send(bytes(packet))
                except OSError as e:
                    raise self._unsent(len(bytes(packet)), e) from e

    def _unsent(self, size: int, error: OSError) -> TriggerError:
        tried, why, fix = f"cannot send {size} bytes out of", str(error), None
        if error.errno == errno.ENOBUFS:
            why = "ENOBUFS: a tc program or a filter at its egress dropped the frame, or its queue is full"
            fix = 'if it must be dropped: with pytest.raises(OSError, match="ENOBUFS"): interface.send(…)'
        return TriggerError(tried, on=str(self), why=why, fix=fix, errno=error.errno)

    def sniff(self, packet: Callable[[bytes], Any] = bytes, *, outgoing: bool = False) -> Sniffer:
        """Collects the frames that arrive, and with `outgoing` those that leave; see `Sniffer`.

        `packet` makes an object of the bytes of each frame, for example Scapy's ``Ether``.
        """
        with self.enter():
            listening = open_packet_socket(self.name, receive=True, outgoing=outgoing)
        sniffer = Sniffer(listening, str(self), packet)
        self.netns.keep(sniffer)
        return sniffer

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"interface {self.name!r} of {self.netns}"

    # inside

    def _link(self) -> Any:
        with refused_as("cannot read", str(self)), self.netns.netlink() as ip:
            return ip.link("get", index=self.index)[0]

    def _set(self, what: str, **values: Any) -> None:
        with refused_as(what, str(self)), self.netns.netlink() as ip:
            ip.link("set", index=self.index, **values)

    def _first(self, kind: type) -> Any:
        for address in self.addresses:
            if isinstance(address, kind):
                return address.ip
        raise TriggerError("no address", on=f"of {self}", why=f"it has no {kind.__name__[:4]} address")


class Veth(NamedTuple):
    """The two ends of a pair: `near` in the namespace whose method made it, `far` in the other."""

    near: Interface
    far: Interface


class Plan:
    """Numbers the networks of one test, so that no two of them share an address."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """Returns the next number, from 1 up."""
        return next(self._numbers)

    @staticmethod
    def addresses(number: int) -> list[AddressPair]:
        """Returns the pairs of addresses of network `number`."""
        v4, v6 = f"10.{number >> 8}.{number & 255}", f"fd00:{number:x}:"
        return [(f"{v4}.1/24", f"{v4}.2/24"), (f"{v6}:1/64", f"{v6}:2/64")]

    @staticmethod
    def mac(number: int, end: int) -> str:
        """Returns the hardware address of an end (1 or 2). It is locally administered."""
        return f"02:62:70:{number >> 8 & 255:02x}:{number & 255:02x}:{end:02x}"


def connect(
    near_ns: Namespace,
    far_ns: Namespace,
    plan: Plan,
    *,
    names: tuple[str | None, str | None],
    addresses: Iterable[AddressPair] | None,
    mtu: int | None,
) -> Veth:
    """Connects two namespaces; see `NetNs.veth_to`."""
    number = plan.next_number()
    macs = plan.mac(number, 1), plan.mac(number, 2)
    near_name, far_name = names[0] or near_ns.next_name(), names[1] or far_ns.next_name()
    pairs = [_parse(p) for p in (plan.addresses(number) if addresses is None else addresses)]
    size = {} if mtu is None else {"mtu": mtu}
    peer = {"ifname": far_name, "address": macs[1], "net_ns_fd": far_ns.fileno(), **size}
    turned = [(theirs, ours) for ours, theirs in pairs]
    what = f"cannot connect {near_ns}", f"to {far_ns} by {near_name!r} and {far_name!r}"
    with refused_as(*what), near_ns.netlink() as near_ip, far_ns.netlink() as far_ip:
        near_ip.link("add", ifname=near_name, kind="veth", address=macs[0], peer=peer, **size)
        near, far = near_ns.interface(near_name), far_ns.interface(far_name)
        _bring_up(near_ip, near, pairs, macs[1])
        _bring_up(far_ip, far, turned, macs[0])
        _wait_for_silence(near_ip, near, pairs)
        _wait_for_silence(far_ip, far, turned)
    return Veth(near, far)


def _bring_up(
    ip: Any, interface: Interface, pairs: list[tuple[Address | None, Address | None]], their_mac: str
) -> None:
    for mine, _ in pairs:
        if mine is not None:
            _add_address(ip, interface.index, mine)
    ip.link("set", index=interface.index, state="up")
    for mine, theirs in pairs:
        if mine is not None and theirs is not None and theirs.ip in mine.network:
            ip.neigh(
                "add", dst=str(theirs.ip), lladdr=their_mac, ifindex=interface.index, state=_NUD_PERMANENT
            )


def _add_address(ip: Any, index: int, address: Address) -> None:
    flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags)


def _wait_for_silence(
    ip: Any, interface: Interface, pairs: list[tuple[Address | None, Address | None]]
) -> None:
    """Waits until the kernel has reported the multicast groups of IPv6 addresses, which it does unasked.

    Else a test that counts packets would sometimes count these reports. The kernel sends them when an address
    is ready, see igmp6 in proc(5), and again when the link is ready.
    """
    v6 = [mine.ip.packed for mine, _ in pairs if mine is not None and mine.version == 6]
    groups = {f"{interface.index} ff0200000000000000000001ff{packed[-3:].hex()}" for packed in v6}
    deadline = time.monotonic() + _SILENCE * timeout_scale()
    while groups and time.monotonic() < deadline:
        with interface.enter():
            lines = Path("/proc/thread-self/net/igmp6").read_text().splitlines()
        reported = {f"{index} {group}" for index, _, group, *_ in map(str.split, lines)}
        if groups <= reported and ip.link("get", index=interface.index)[0].get("operstate") == "UP":
            return
        time.sleep(0.001)


def _parse(pair: AddressPair) -> tuple[Address | None, Address | None]:
    ours, theirs = (None if a is None else ip_interface(a) for a in pair)
    return ours, theirs
