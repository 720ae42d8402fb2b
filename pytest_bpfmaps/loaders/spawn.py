"""Starts a process in namespaces and control groups, with chosen privileges."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import signal
import struct
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_bpfmaps.errors import LoaderError, closest, strerror
from pytest_bpfmaps.kernel.delegation import Delegated, Delegation, delegation
from pytest_bpfmaps.kernel.netns import inside_netns
from pytest_bpfmaps.kernel.privileges import ALL_CAPABILITIES, effective_capabilities, set_capabilities
from pytest_bpfmaps.libbpf import ffi, lib
from pytest_bpfmaps.loaders.arguments import check_capabilities, check_user
from pytest_bpfmaps.loaders.seccomp import Profile, SeccompFilter, seccomp_filter
from pytest_bpfmaps.loaders.token_namespaces import check_kernel, join, token_namespaces

_PDEATHSIG, _KEEPCAPS, _BOUNDING_DROP, _AMBIENT = 1, 8, 24, 47  # prctl(2)
_AMBIENT_RAISE = 2
_FAILED = struct.Struct("=BI")
_STEPS = (
    "enter the cgroup",
    "enter the namespaces of the BPF token",
    "become the user",
    "drop capabilities",
    "install the seccomp filter",
)


@dataclass(frozen=True, slots=True)
class Privileges:
    """The user and the rights of a process. `capabilities` are the bits of all that it has; None: as before.

    `seccomp` is a filter of its system calls, or None. `token` is what its BPF token delegates, or None.
    `name` is the user as the test names it.
    """

    user: int | None = None
    name: str | int | None = None
    group: int | None = None
    groups: list[int] = field(default_factory=list)
    capabilities: int | None = None
    seccomp: SeccompFilter | None = None
    token: Delegation | None = None


def privileges(
    user: str | int | None,
    caps: Iterable[str] | None,
    seccomp: Profile | None = None,
    token: Delegated | None = None,
) -> Privileges:
    """Returns the privileges for a user's name or number, and names of capabilities, ``["BPF", "PERFMON"]``.

    `seccomp` is a container's profile, `token` what a BPF token delegates. Raises `LoaderError` for a user or
    a capability that does not exist, and for a wrong profile or delegation; and `UnsupportedError` where the
    kernel has no tokens.
    """
    check_user(user)
    check_capabilities(caps)
    bits = None if caps is None else sum(1 << _capability(name) for name in {*caps})
    rights = _of_user(user, bits)
    if bits and token is None:  # with a token it has them in a namespace of its own
        _check_own(bits)
    if token is not None:
        check_kernel()
        rights = replace(rights, token=delegation(token))
    if seccomp is None:
        return rights
    has = effective_capabilities() if bits is None and user is None else bits or 0

    def has_capability(name: str) -> bool:
        known = name.removeprefix("CAP_")
        return known in ALL_CAPABILITIES and bool(has >> ALL_CAPABILITIES.index(known) & 1)

    return replace(rights, seccomp=seccomp_filter(seccomp, has_capability))


def _of_user(user: str | int | None, bits: int | None) -> Privileges:
    if user is None:
        return Privileges(capabilities=bits)
    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        if isinstance(user, int):
            return Privileges(user, user, user, [], bits)
        known = (each.pw_name for each in pwd.getpwall())
        raise LoaderError(
            "cannot start a process",
            on=f"as user {user!r}",
            why="there is no such user",
            fix=closest(user, known),
        ) from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Privileges(entry.pw_uid, user, entry.pw_gid, groups, bits)


def _check_own(bits: int) -> None:
    """Raises `LoaderError` for capabilities that this process does not have, and so can't give."""
    lacking = [ALL_CAPABILITIES[each] for each in _bits(bits & ~effective_capabilities())]
    if lacking:
        raise LoaderError(
            "cannot start a process",
            on=f"with {' and '.join(f'CAP_{name}' for name in lacking)}",
            why=f"this process itself does not have {'it' if len(lacking) == 1 else 'them'}",
            fix="run the tests as root of the machine, not of a container; or in a virtual machine: "
            "pytest --bpf-kernel=6.1",
            errno=errno.EPERM,
        )


def _capability(name: str) -> int:
    known = name.upper().removeprefix("CAP_") if isinstance(name, str) else str(name)
    if known not in ALL_CAPABILITIES:
        raise LoaderError(
            "cannot start a process",
            on=f"with capability {name!r}",
            why="there is no such capability",
            fix=closest(known, ALL_CAPABILITIES),
        )
    return ALL_CAPABILITIES.index(known)


def spawn(
    path: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    netns: int | None,
    cgroup: str | None,
    rights: Privileges,
    begin: Callable[[], None],
) -> subprocess.Popen[bytes]:
    """Starts the file at `path` with the arguments `command`, in a session of its own.

    `begin` is called in the child before all else, with the privileges of this process. The kernel kills it
    when this thread ends. Raises OSError if it can't be executed, and `LoaderError` if a step before that is
    refused.
    """
    lib.prctl  # noqa: B018 - opens libc now; that is not safe after the fork
    reading, writing = os.pipe2(os.O_CLOEXEC)
    group = -1
    try:
        group = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) if cgroup else -1
        with contextlib.ExitStack() as entered:
            inside = entered.enter_context(token_namespaces(rights.token)) if rights.token else None
            if netns is not None:
                entered.enter_context(inside_netns(netns))
            entered.enter_context(_quiet_fork())
            child = subprocess.Popen(
                command,
                executable=path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=cwd,
                env=env,
                start_new_session=True,
                close_fds=rights.seccomp is None,  # the filter may refuse what closes them; see _prepare
                preexec_fn=lambda: _prepare(group, inside, rights, begin, writing),  # noqa: PLW1509
            )
    finally:
        os.close(writing)
        if group >= 0:
            os.close(group)
        failed = _read_all(reading)
    if failed:
        child.communicate()
        step, number = _FAILED.unpack(failed)
        raise LoaderError(
            f"cannot start {command[0]}: cannot {_STEPS[step]}",
            on=cgroup if step == 0 else f"uid {rights.user}" if step == 2 else None,
            why=strerror(number),
            fix="run the tests as root" if os.geteuid() else None,
            errno=number,
        )
    return child


def _read_all(fd: int) -> bytes:
    with open(fd, "rb", buffering=0) as file:
        return file.read(_FAILED.size) or b""


@contextlib.contextmanager
def _quiet_fork() -> Iterator[None]:
    with warnings.catch_warnings():
        # The child takes no lock that another thread may hold: it only calls the kernel, and executes.
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _prepare(
    group: int,
    inside: tuple[int, int] | None,
    rights: Privileges,
    begin: Callable[[], None],
    report: int,
) -> None:
    """Runs in the child, before it executes its program."""
    step = 0
    begin()
    try:
        if group >= 0:
            os.write(group, b"0")
        step = 1
        if inside is not None:
            join(inside)
        step = 2
        if rights.user is not None:
            if rights.capabilities is not None:
                _prctl(_KEEPCAPS, 1)
            os.setgroups(rights.groups)
            os.setgid(rights.group or 0)
            if rights.capabilities is not None:
                _limit(rights.capabilities)
            os.setuid(rights.user)
        elif rights.capabilities is not None:
            _limit(rights.capabilities)
        step = 3
        if rights.capabilities is not None:
            set_capabilities(rights.capabilities)
            for bit in _bits(rights.capabilities):
                _prctl(_AMBIENT, _AMBIENT_RAISE, bit)
        step = 4
        _prctl(_PDEATHSIG, signal.SIGKILL)  # after a change of the user, which clears it
        if rights.seccomp is not None:
            _close_on_exec()
            rights.seccomp.install()
    except OSError as e:
        os.write(report, _FAILED.pack(step, e.errno or 0))
        os._exit(127)


def _close_on_exec() -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the one that has listed them is closed
                os.set_inheritable(int(name), False)


def _limit(bits: int) -> None:
    """Drops all other capabilities from the bounding set, so that not even root gets them by execve(2)."""
    for number in range(len(ALL_CAPABILITIES)):
        if not bits >> number & 1:
            lib.prctl(_BOUNDING_DROP, _long(number))  # an older kernel lacks the newest capabilities


def _bits(bits: int) -> Iterator[int]:
    return (number for number in range(len(ALL_CAPABILITIES)) if bits >> number & 1)


def _prctl(option: int, *arguments: int) -> None:
    given = [_long(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    if lib.prctl(option, *given) < 0:
        raise OSError(ffi.errno, os.strerror(ffi.errno))


def _long(number: int) -> Any:
    return ffi.cast("unsigned long", number)
