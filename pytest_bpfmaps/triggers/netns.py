"""Network namespaces for tests: made in a few milliseconds, gone with the test."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pytest_bpfmaps.errors import ClosedError, NameLookupError, TriggerError, closest
from pytest_bpfmaps.kernel.netns import create_netns, inside_netns
from pytest_bpfmaps.kernel.open_resources import forget, keep, note
from pytest_bpfmaps.kernel.release import timeout_scale
from pytest_bpfmaps.triggers.interfaces import Address, AddressPair, Interface, Plan, Veth, connect
from pytest_bpfmaps.triggers.netlink import netlink_socket, refused_as, require_pyroute2
from pytest_bpfmaps.triggers.reaper import reaper
from pytest_bpfmaps.triggers.unique_names import PREFIX, unique_name

T = TypeVar("T")

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)
_SO_NETNS_COOKIE = 71
_QUIET = {
    # what the kernel would say without being asked: a test counts packets, and these are none of its own
    "net/ipv6/conf/default/addr_gen_mode": "1",  # no link-local address
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/default/force_mld_version": "1",
    "net/ipv6/conf/default/mldv1_unsolicited_report_interval": "2147483647",
}


class NetNs:
    """A network namespace with its loopback up; ``with netns.enter():`` puts this thread inside.

    `name` is unique on this machine and good for ``ip netns exec NAME`` while the test runs. `plan` numbers
    the networks between namespaces. Made by the fixture `bpf_netns`. Raises `UnsupportedError` where this
    process may not make namespaces.
    """

    def __init__(self, name: str, path: Path, plan: Plan) -> None:
        self.name = name
        self._plan = plan
        self._interface_number = 0
        self._stack = contextlib.ExitStack()
        self._fd = create_netns()
        self._stack.callback(os.close, self._fd)
        note(str(self), [self._fd])
        try:
            self.path = _publish(self._fd, path)
            self._stack.callback(_unpublish, self.path)
            reaper.watch_netns(self.inode, self.path)
            self._stack.callback(reaper.forget_netns, self.inode)
            self._prepare()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Its descriptor, as ``netns=`` of `Program.attach` takes it. Raises `ClosedError` after teardown."""
        if self._fd < 0:
            raise ClosedError("cannot use", on=str(self), why="it is torn down already")
        return self._fd

    @property
    def inode(self) -> int:
        """Its inode number, as links tell it and ``lsns`` shows it."""
        return os.fstat(self.fileno()).st_ino

    @property
    def cookie(self) -> int:
        """What ``bpf_get_netns_cookie()`` gives (Linux 5.14, commit e8b9eab99232)."""
        with self.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int(struct.unpack("=Q", raw)[0])

    @contextlib.contextmanager
    def enter(self) -> Iterator[Self]:
        """This thread is inside, and afterwards where it was before; may be nested."""
        with inside_netns(self.fileno()):
            yield self

    # interfaces

    def veth_to(
        self,
        other: NetNs,
        *,
        names: tuple[str | None, str | None] = (None, None),
        addresses: Iterable[AddressPair] | None = None,
        mtu: int | None = None,
    ) -> Veth:
        """Connects two namespaces by a pair of virtual Ethernet interfaces that are up and have addresses.

        `addresses` are pairs for this side and the other, ``[("192.0.2.1/24", "192.0.2.2/24")]`` (None: that
        side gets none); by default one IPv4 and one IPv6 pair that no other veth of the test has. `names`
        default to ``veth0``, ``veth1`` …; `mtu` is in bytes. Each end knows the other's MAC address, so no
        ARP or neighbour discovery is seen. Raises `TriggerError` with errno.
        """
        return connect(self, other, self._plan, names=names, addresses=addresses, mtu=mtu)

    def interface(self, name: str) -> Interface:
        """An interface by name. Raises `NameLookupError` with the closest ones."""
        with self.enter():
            try:
                return Interface(self, name, socket.if_nametoindex(name))
            except OSError:
                known = [n for _, n in socket.if_nameindex()]
        raise NameLookupError("no interface", on=f"{name!r} in {self}", fix=closest(name, known))

    @property
    def interfaces(self) -> list[Interface]:
        """All of them, the loopback first."""
        with self.enter():
            return [Interface(self, name, index) for index, name in socket.if_nameindex()]

    @property
    def addresses(self) -> list[Address]:
        """The addresses of all interfaces but the loopback, each with its network."""
        return [a for i in self.interfaces if i.name != "lo" for a in i.addresses]

    def add_bridge(self, name: str = "br0", ports: Sequence[Interface] = ()) -> Interface:
        """A bridge that is up, with interfaces of this namespace as its ports."""
        with refused_as(f"cannot make bridge {name!r}", str(self)), self.netlink() as ip:
            ip.link("add", ifname=name, kind="bridge")
            bridge = self.interface(name)
            for port in ports:
                ip.link("set", index=port.index, master=bridge.index)
            ip.link("set", index=bridge.index, state="up")
        return bridge

    def add_route(self, destination: str, *, via: object = None, interface: Interface | None = None) -> None:
        """A route to ``"192.0.2.0/24"`` or ``"default"``, by a gateway's address, an interface, or both."""
        target = destination
        if destination == "default":
            target = "::/0" if ":" in str(via) else "0.0.0.0/0"
        keys: dict[str, Any] = {"dst": target}
        if via is not None:
            keys["gateway"] = str(via)
        if interface is not None:
            keys["oif"] = interface.index
        with refused_as(f"cannot add a route to {destination}", f"in {self}"), self.netlink() as ip:
            ip.route("add", **keys)

    def sysctl(self, name: str, value: object = None) -> str:
        """Reads ``"net.ipv4.ip_forward"``, or sets it and gives the value before."""
        path = Path("/proc/sys", *name.split("/") if "/" in name else name.split("."))
        with self.enter():
            try:
                before = path.read_text().strip()
                if value is not None:
                    path.write_text(str(value))
            except OSError as e:
                raise TriggerError(f"cannot set {name}", on=f"in {self}", why=str(e), errno=e.errno) from e
        return before

    @contextlib.contextmanager
    def netlink(self) -> Iterator[Any]:
        """pyroute2's ``IPRoute`` inside, for what has no method here; this thread is inside meanwhile."""
        with self.enter(), netlink_socket() as ip:
            yield ip

    # what runs inside

    def run(self, args: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        """`subprocess.run` inside."""
        with self.enter():
            return subprocess.run(args, **options)  # noqa: PLW1510 - `check` is the caller's to choose

    def Popen(self, args: Any, **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` inside; what still runs at teardown is killed."""
        with self.enter():
            started: subprocess.Popen[Any] = subprocess.Popen(args, **options)
        self._stack.callback(_end, started)
        return started

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `function` gives when this thread calls it inside."""
        with self.enter():
            return function(*args, **kwargs)

    def thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Calls `function` in a new thread inside; ``.result(timeout)`` waits for what it gives."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as e:  # whoever asks for the result gets it
                future.set_exception(e)
            else:
                future.set_result(result)

        name = getattr(function, "__name__", repr(function))
        started = threading.Thread(target=work, name=f"{self.name}:{name}", daemon=True)
        with self.enter():  # a thread begins where the one that starts it is
            started.start()
        self._stack.callback(self._join, started, name)
        return future

    # teardown

    def close(self) -> None:
        """Ends what it was asked to run, last to first, and lets go of the namespace. Safe to call again.

        Interfaces go with it. Raises `TriggerError` when a thread inside does not end within a second.
        """
        forget(self._fd)
        self._fd = -1
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"network namespace {self.name}"

    # inside

    def _prepare(self) -> None:
        with self.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            for name, value in _QUIET.items():
                with contextlib.suppress(FileNotFoundError):  # IPv6 is switched off
                    Path("/proc/sys", name).write_text(value)
            _loopback_up(any_socket)

    def next_name(self) -> str:
        self._interface_number += 1
        return f"veth{self._interface_number - 1}"

    def keep(self, closeable: contextlib.AbstractContextManager[Any]) -> None:
        self._stack.push(closeable)

    def _join(self, thread: threading.Thread, name: str) -> None:
        thread.join(timeout=timeout_scale())
        if thread.is_alive():
            raise TriggerError(
                "cannot tear down",
                on=str(self),
                why=f"{name}() still runs in a thread inside",
                fix="let it end with the test: close its socket, give it a timeout",
            )


def _loopback_up(any_socket: socket.socket) -> None:
    # by ioctl: the one thing that every namespace needs, without waiting for pyroute2's import
    import fcntl

    request = struct.pack("16sh22x", b"lo", 0)
    flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
    fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _publish(fd: int, path: Path) -> Path:
    """Gives the namespace a name that `ip netns` finds: a link to our descriptor, which dies with us."""
    target = Path(f"/proc/{os.getpid()}/fd/{fd}")
    try:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    except OSError:
        return target  # /run is not ours to write: the name is for people only
    return path


def _unpublish(path: Path) -> None:
    if path.is_symlink():
        path.unlink(missing_ok=True)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # unwritten input of a dead process
                stream.close()
    process.wait()


class NetNsFactory:
    """What the fixture `bpf_netns` is: each call makes a namespace; `close` takes all down, last to first.

    Raises `UnsupportedError` where pyroute2 is not installed.
    """

    def __init__(self, folder: Path = Path("/run/netns")) -> None:
        require_pyroute2()
        self._folder = folder
        self._plan = Plan()
        self._stack = contextlib.ExitStack()
        self._is_entered = False
        _forget_dead(folder)

    def __call__(self, label: str = "") -> NetNs:
        """A new network namespace with its loopback up; `label` becomes part of its name."""
        name = unique_name("".join(c if c.isalnum() else "_" for c in label))
        made = NetNs(name, self._folder / name, self._plan)
        self._stack.push(made)
        if self._is_entered:
            keep([made.fileno()])
        return made

    def close(self) -> None:
        """Takes down all namespaces that it made. Safe to call again."""
        self._stack.close()

    def __enter__(self) -> Self:
        self._is_entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _forget_dead(folder: Path) -> None:
    """Removes the names of namespaces whose process was killed; the kernel has removed the rest."""
    for link in folder.glob(f"{PREFIX}-*"):
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
