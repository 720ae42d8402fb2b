"""``--bpf-kernel=auto``: the host if this user can load BPF programs there, else a guest, else skips.

What runs where is decided after the collection, so that a run without BPF tests never starts a guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.errors import BpfError, UnsupportedError, VmError

if TYPE_CHECKING:
    from pytest_bpfmaps.vm.catalogue import Kernel


def settle(session: pytest.Session, options: Mapping[str, Any]) -> None:
    """Lets the collected tests run where they can; `options` are those of guests."""
    config = session.config
    try:
        from pytest_bpfmaps.kernel.privilege import host_refusal

        host = host_refusal()
    except UnsupportedError:
        return  # no libbpf: the tests say that, and a guest would lack it too
    if not host or session.testsfailed:
        return
    try:
        _distribute(session, options, host)
    except (VmError, pytest.UsageError) as error:
        reason = f"BPF programs can't be loaded here: {host}; nor in a guest: {_one_line(error)}"
        config.pluginmanager.register(Skipper(reason), "bpfmaps-skipper")


def _distribute(session: pytest.Session, options: Mapping[str, Any], host: str) -> None:
    """Makes the run one with a guest; `host` is why it is not on the host.

    What pytest-xdist does at its configuration and at the session's start is done now. Raises VmError and
    pytest.UsageError when there can be no guest.
    """
    from pytest_bpfmaps.plugin import GUESTS, NAMES, SELECTION
    from pytest_bpfmaps.vm.selection import newest

    config = session.config
    if hasattr(config, "workerinput"):
        raise pytest.UsageError("pytest-xdist has its workers already\n  -> name a kernel: --bpf-kernel=6.1")
    from pytest_bpfmaps.report.guests import Guests

    selection = newest()
    if _none_can_run(session, selection.guests[0].kernel):
        return
    guests = Guests(config, selection, options)
    from xdist.dsession import DSession

    config.stash[SELECTION], config.stash[NAMES], config.stash[GUESTS] = selection, selection.names, guests
    config.pluginmanager.register(guests, "bpfmaps-guests")
    distributed = DSession(config)
    config.pluginmanager.register(distributed, "dsession")
    terminal = config.pluginmanager.getplugin("terminalreporter")
    if terminal is not None:
        terminal.showfspath = False
        for line in (f"bpfmaps: not on the host: {host}", *guests.header()):
            terminal.write_line(line)
    guests.pytest_sessionstart(session)
    distributed.pytest_sessionstart(session)


def _none_can_run(session: pytest.Session, kernel: Kernel) -> bool:
    """Whether each BPF test needs what the guest's kernel lacks: no guest is started to skip them all."""
    from pytest_bpfmaps.plugin import is_bpf_item
    from pytest_bpfmaps.report.foreseen import Unrunnable, foresee
    from pytest_bpfmaps.report.skips import is_strict

    items = [item for item in session.items if is_bpf_item(item)]
    try:
        missing = foresee(items, kernel)
    except UnsupportedError:
        return False  # its BTF can't be read; the tests say more
    if is_strict(session.config) or any(item.nodeid not in missing for item in items):
        return False
    session.config.pluginmanager.register(Unrunnable(missing, kernel.name), "bpfmaps-unrunnable")
    return True


def _one_line(error: BaseException) -> str:
    if isinstance(error, BpfError):
        head = " ".join(part for part in (error.what, error.on) if part)
        text = f"{head}: {error.why}" if error.why else head
        return f"{text} -> {error.fix}" if error.fix else text
    return str(error).replace("\n  -> ", " -> ")


class Skipper:
    """Skips the BPF tests. Registered last, so that it comes before what else may skip them."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip."""
        from pytest_bpfmaps.plugin import is_bpf_item

        if is_bpf_item(item):
            pytest.skip(self._reason)
