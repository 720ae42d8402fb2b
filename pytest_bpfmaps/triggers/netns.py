"""Makes network namespaces for tests in a few milliseconds, and removes them with the test."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pytest_bpfmaps.errors import ClosedError, NameLookupError, TriggerError, closest, strerror
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
    # These settings keep the kernel from sending packets by itself. A test counts packets, and these are not
    # its own.
    "net/ipv6/conf/default/addr_gen_mode": "1",  # no link-local address
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/default/force_mld_version": "1",
    "net/ipv6/conf/default/mldv1_unsolicited_report_interval": "2147483647",
}


class NetNs:
    """A network namespace with its loopback up; ``with netns.enter():`` puts this thread inside.

    `name` is unique on this machine. ``ip netns exec NAME`` takes it while the test runs. `plan` numbers the
    networks between namespaces. The fixture `bpf_netns` makes it. Raises `UnsupportedError` where this
    process may not make namespaces.
    """

    def __init__(self, name: str, path: Path, plan: Plan) -> None:
        self.name = name
        self._plan = plan
        self._interface_number = 0
        self._stack = contextlib.ExitStack()
        self.kept: list[Any] = []
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
        """Returns its descriptor, for ``netns=`` of `Program.attach`. Raises `ClosedError` after teardown."""
        if self._fd < 0:
            raise ClosedError("cannot use", on=str(self), why="it is torn down already")
        return self._fd

    @property
    def inode(self) -> int:
        """Its inode number. Links tell it, and ``lsns`` shows it."""
        return os.fstat(self.fileno()).st_ino

    @property
    def cookie(self) -> int:
        """What ``bpf_get_netns_cookie()`` returns (Linux 5.14, commit e8b9eab99232)."""
        with self.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int(struct.unpack("=Q", raw)[0])

    @contextlib.contextmanager
    def enter(self) -> Iterator[Self]:
        """Puts this thread inside, and back afterwards. It may be nested."""
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

        `addresses` are pairs for this side and the other, ``[("192.0.2.1/24", "192.0.2.2/24")]``. With None
        in a pair, that side gets no address. By default there is one IPv4 and one IPv6 pair that no other
        veth of the test has. `names` default to ``veth0``, ``veth1`` …; `mtu` is in bytes. Each end knows the
        other's MAC address, so neither sends ARP or neighbour discovery. Raises `TriggerError` with errno.
        """
        return connect(self, other, self._plan, names=names, addresses=addresses, mtu=mtu)

    def interface(self, name: str) -> Interface:
        """Returns an interface by name. Raises `NameLookupError` with the closest names."""
        with self.enter():
            try:
                return Interface(self, name, socket.if_nametoindex(name))
            except OSError:
                known = [n for _, n in socket.if_nameindex()]
        raise NameLookupError("no interface", on=f"{name!r} in {self}", fix=closest(name, known))

    @property
    def interfaces(self) -> list[Interface]:
        """All interfaces, the loopback first."""
        with self.enter():
            return [Interface(self, name, index) for index, name in socket.if_nameindex()]

    @property
    def addresses(self) -> list[Address]:
        """The addresses of all interfaces but the loopback, each with its network."""
        return [a for i in self.interfaces if i.name != "lo" for a in i.addresses]

    def add_bridge(self, name: str = "br0", ports: Sequence[Interface] = ()) -> Interface:
        """Makes a bridge that is up. Its `ports` are interfaces of this namespace."""
        with refused_as(f"cannot make bridge {name!r}", str(self)), self.netlink() as ip:
            ip.link("add", ifname=name, kind="bridge")
            bridge = self.interface(name)
            for port in ports:
                ip.link("set", index=port.index, master=bridge.index)
            ip.link("set", index=bridge.index, state="up")
        return bridge

    def add_route(self, destination: str, *, via: object = None, interface: Interface | None = None) -> None:
        """Adds a route to ``"192.0.2.0/24"`` or ``"default"``, by a gateway, an interface, or both."""
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
        """Reads ``"net.ipv4.ip_forward"``, or sets it and returns the value before."""
        path = Path("/proc/sys", *name.split("/") if "/" in name else name.split("."))
        with self.enter():
            try:
                before = path.read_text().strip()
                if value is not None:
                    path.write_text(str(value))
            except OSError as e:
                what = f"cannot {'read' if value is None else 'set'} {name}"
                raise TriggerError(what, on=f"in {self}", why=str(e), errno=e.errno) from e
        return before

    @contextlib.contextmanager
    def netlink(self) -> Iterator[Any]:
        """Yields pyroute2's ``IPRoute`` for what has no method here. This thread is inside meanwhile."""
        with self.enter(), netlink_socket() as ip:
            yield ip

    # what runs inside

    def run(self, args: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Calls `subprocess.run` inside. Raises `TriggerError` when the program can't be started."""
        with self.enter(), self._starting():
            return subprocess.run(args, **options)  # noqa: PLW1510 - `check` is the caller's to choose

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            if e.filename is None:
                raise
            why, fix = f"{strerror(e.errno or 0)}", None
            if e.errno == errno.ENOENT:
                why, fix = "there is no such file, also not in $PATH", "install it, or give its path"
            name = os.fsdecode(e.filename)
            raise TriggerError(
                "cannot run", on=f"{name!r} in {self}", why=why, fix=fix, errno=e.errno
            ) from None

    def Popen(self, args: Any, **options: Any) -> subprocess.Popen[Any]:
        """Calls `subprocess.Popen` inside. Teardown kills the process if it still runs.

        Raises `TriggerError` when the program can't be started.
        """
        with self.enter(), self._starting():
            started: subprocess.Popen[Any] = subprocess.Popen(args, **options)
        self._stack.callback(_end, started)
        return started

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Calls `function` in this thread inside, and returns its result."""
        with self.enter():
            return function(*args, **kwargs)

    def thread(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Calls `function` in a new thread inside; ``.result(timeout)`` waits for its result."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as e:  # ``result`` raises it
                future.set_exception(e)
            else:
                future.set_result(result)

        name = getattr(function, "__name__", repr(function))
        started = threading.Thread(target=work, name=f"{self.name}:{name}", daemon=True)
        with self.enter():  # a new thread is in the namespace of the thread that starts it
            started.start()
        self._stack.callback(self._join, started, name)
        return future

    # teardown

    def close(self) -> None:
        """Ends everything that runs inside, last to first, and releases the namespace. Safe to call again.

        The interfaces go with it. Raises `TriggerError` when a thread inside does not end within a second.
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
        self.kept.append(closeable)

    def _join(self, thread: threading.Thread, name: str) -> None:
        thread.join(timeout=timeout_scale())
        if thread.is_alive():
            raise TriggerError(
                "cannot tear down",
                on=str(self),
                why=f"{name}() still runs in a thread inside",
                fix="let it end with the test: close its socket, or give it a timeout",
            )


def _loopback_up(any_socket: socket.socket) -> None:
    # By ioctl: every namespace needs this one thing, and pyroute2 takes long to import.
    import fcntl

    request = struct.pack("16sh22x", b"lo", 0)
    flags = struct.unpack_from("h", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request), 16)[0]
    fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def _publish(fd: int, path: Path) -> Path:
    """Makes a name for `ip netns`: a link to this process's descriptor. Returns the path of the namespace."""
    target = Path(f"/proc/{os.getpid()}/fd/{fd}")
    try:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    except OSError:
        return target  # this process may not write to /run; only people use the name
    return path


def _unpublish(path: Path) -> None:
    if path.is_symlink():
        path.unlink(missing_ok=True)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # a dead process has not read all its input
                stream.close()
    process.wait()


class NetNsFactory:
    """The fixture `bpf_netns`: each call makes a namespace, and `close` removes them all, last to first.

    Raises `UnsupportedError` where pyroute2 is not installed.
    """

    def __init__(self, folder: Path = Path("/run/netns")) -> None:
        require_pyroute2()
        self._folder = folder
        self._plan = Plan()
        self._stack = contextlib.ExitStack()
        self.made: list[NetNs] = []
        self._is_entered = False
        _forget_dead(folder)

    def __call__(self, label: str = "") -> NetNs:
        """Makes a network namespace with its loopback up; `label` becomes part of its name."""
        name = unique_name("".join(c if c.isalnum() else "_" for c in label))
        made = NetNs(name, self._folder / name, self._plan)
        self.made.append(made)
        self._stack.push(made)
        if self._is_entered:
            keep([made.fileno()])
        return made

    def close(self) -> None:
        """Removes all namespaces that it made. Safe to call again."""
        self._stack.close()

    def __enter__(self) -> Self:
        self._is_entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _forget_dead(folder: Path) -> None:
    """Removes the names of namespaces whose process was killed. The kernel has removed the namespaces."""
    for link in folder.glob(f"{PREFIX}-*"):
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
