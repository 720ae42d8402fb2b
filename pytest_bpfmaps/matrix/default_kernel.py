"""``--bpf-kernel=auto``: the host if this user can load BPF programs there, else a guest, else skips.

The decision comes after the collection, so that a run without BPF tests never starts a guest.
"""

from __future__ import annotations

import pytest

from pytest_bpfmaps.errors import BpfError, UnsupportedError, VmError
from pytest_bpfmaps.matrix.items import (
    COLLECTED,
    GUESTS,
    NAMES,
    SELECTION,
    WORKERS,
    guest_options,
    is_bpf_item,
)


def refusal() -> str:
    """Returns why no BPF program can be loaded here.

    The text is empty when one can be loaded, or when a guest would not be better.
    """
    from pytest_bpfmaps.kernel.privileges import host_refusal

    try:
        return host_refusal()
    except UnsupportedError:
        return ""  # libbpf is missing: the tests say that, and a guest would lack it, too


def settle(session: pytest.Session) -> None:
    """Has the collected BPF tests run here, or in a guest, or else be skipped."""
    config = session.config
    host = refusal() if any(map(is_bpf_item, session.items)) else ""
    if host and not session.testsfailed:
        try:
            _distribute(session, host)
            return
        except (VmError, pytest.UsageError) as error:
            reason = f"BPF programs can't be loaded here: {host}; nor in a guest: {_one_line(error)}"
            config.pluginmanager.register(Skipper(reason), "bpfmaps-skipper")
    if WORKERS in config.stash:
        config.stash[WORKERS].begin(session, config.stash[COLLECTED].known())


def _distribute(session: pytest.Session, host: str) -> None:
    """Has the run use a guest. `host` says why the host can't run them.

    Raises VmError and pytest.UsageError when there can be no guest.
    """
    from pytest_bpfmaps.matrix.guest_conditions import check
    from pytest_bpfmaps.matrix.guests import Guests
    from pytest_bpfmaps.matrix.selection import newest

    config = session.config
    selection = newest()
    if hasattr(config, "workerinput"):  # its controller can load BPF programs, or could start no guest
        check(config, selection, guest_options(config))
        raise pytest.UsageError("this is a worker of pytest-xdist\n  -> name a kernel: --bpf-kernel=6.1")
    guests = Guests(config, selection, guest_options(config))
    config.stash[SELECTION], config.stash[NAMES], config.stash[GUESTS] = selection, selection.names, guests
    terminal = config.pluginmanager.getplugin("terminalreporter")
    config.pluginmanager.register(guests, "bpfmaps-guests")
    if terminal is not None:
        for line in (f"bpfmaps: not on the host: {host}", *guests.header(with_types=False)):
            terminal.write_line(line)  # where vmlinux.h comes from was said after the collection
    guests.begin(session)


def _one_line(error: BaseException) -> str:
    if isinstance(error, BpfError):
        head = " ".join(part for part in (error.what, error.on) if part)
        text = f"{head}: {error.why}" if error.why else head
        return f"{text} -> {error.fix}" if error.fix else text
    return str(error).replace("\n  -> ", " -> ")


class Skipper:
    """Skips the BPF tests. It is registered last, so that pytest asks it first."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skips a BPF test."""
        if is_bpf_item(item):
            pytest.skip(self._reason)
