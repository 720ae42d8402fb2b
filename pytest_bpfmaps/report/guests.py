"""The kernel matrix in the process that distributes it: guests as pytest-xdist workers, what became of them.

Hooks of pytest-xdist; registered only in a run that has guests.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_bpfmaps.vm.acceleration import judge
from pytest_bpfmaps.vm.journal import Entry, Journal
from pytest_bpfmaps.vm.selection import HOST, Guest, Selection
from pytest_bpfmaps.vm.ways import MODULES, way

from .skips import KERNEL

IDLE = "idle"
MISSING = "guests are pytest-xdist workers, and it is {}\n  -> {}"


class Guests:
    """Sets up pytest-xdist for `selection`, and turns what happens to guests into reports.

    Raises pytest.UsageError when pytest-xdist is missing or can't be used.
    """

    def __init__(self, config: pytest.Config, selection: Selection, options: Mapping[str, Any]) -> None:
        _require_xdist(config)
        if options["bpf_vm"] not in MODULES:
            known = " or ".join(repr(name) for name in MODULES)
            raise pytest.UsageError(f"bpf_vm = {options['bpf_vm']!r}: guests are started by {known}")
        way(options["bpf_vm"]).check(selection.guests[0].kernel.arch)
        self.config = config
        self.selection = selection
        self.journal = Journal()
        self.verdict = judge(selection.guests[0].kernel)
        self._lives: dict[str, int] = {}
        self._scheduler: Any = None
        self._session: pytest.Session | None = None
        hosts = list(config.option.tx) or [f"popen//id={HOST}"]
        # Guests first: they boot while the host's worker starts.
        config.option.tx = [*(self._spec(guest, options) for guest in selection.guests), *hosts]
        if config.option.dist in ("no", "each"):
            config.option.dist = "load"

    def _spec(self, guest: Guest, options: Mapping[str, Any]) -> str:
        command = [sys.executable, "-m", "pytest_bpfmaps.vm.gateway", guest.pattern]
        command += ["--way", options["bpf_vm"], "--cpus", str(options["bpf_vm_cpus"])]
        command += ["--memory", options["bpf_vm_memory"], "--journal", self.journal.path]
        command += ["--timeout", str(self.verdict.stretch(options["bpf_vm_timeout"]))]
        command += ["--kvm"] if self.verdict.kvm else []
        command += ["--clang", options["bpf_clang"]] if options["bpf_clang"] else []
        name = guest.kernel.name
        return f"popen//python={shlex.join(command)}//id={name}//bpfmaps={name}"

    def header(self) -> list[str]:
        """The kernels, and why they are emulated, if they are although there is a /dev/kvm."""
        why = None if self.verdict.kvm else self.verdict.why
        lines = [f"bpfmaps: {self.selection.header(why)}"]
        if why:
            lines.append(f"bpfmaps: {why}: guests are emulated, which is slow")
        return lines

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Remember the session, which must know how many tests there are."""
        self._session = session

    def pytest_unconfigure(self) -> None:
        """Forget the journal."""
        self.journal.close()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """Let pytest-xdist go on while the guest boots, and name the worker after its kernel."""
        kernel = gateway.spec.bpfmaps
        if kernel is None or kernel == IDLE:
            return
        from execnet.gateway import RInfo

        # Asked for otherwise, and waited for: what any process of this interpreter would answer.
        facts = {
            "executable": sys.executable,
            "version_info": tuple(sys.version_info),
            "platform": sys.platform,
        }
        gateway._cache_rinfo = RInfo({**facts, "cwd": str(self.config.invocation_params.dir), "pid": 0})
        life = self._lives[kernel] = self._lives.get(kernel, 0) + 1
        if life > 1:
            gateway.id = f"{kernel}-{life}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what it is."""
        kernel = node.gateway.spec.bpfmaps or HOST
        node.workerinput["bpfmaps"] = {"kernel": kernel, "kernels": list(self.selection.names)}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Send each test to its kernel's worker."""
        from xdist.workermanage import parse_tx_spec_config

        from pytest_bpfmaps.vm.scheduling import KernelScheduling

        hosts = len(parse_tx_spec_config(config)) - len(self.selection.guests)
        kernels = [HOST] * hosts + [guest.kernel.name for guest in self.selection.guests]
        self._scheduler = KernelScheduling(config, log, kernels, config.option.dist, self._collected)
        return self._scheduler

    def _collected(self, count: int) -> None:
        if self._session is not None:  # pytest-xdist sets the last worker's, and it may have none
            self._session.testscollected = count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A guest died with no test in hand: its kernel has failed, and another try would too."""
        kernel = node.gateway.spec.bpfmaps
        if error is None or kernel is None or kernel == IDLE:
            return
        if not self._scheduler.is_running(node):
            self._scheduler.give_up(kernel)
            self._report_failed_kernel(kernel, self._last_entry(node))
            self._leave_place_empty(node)
            if self._scheduler.collection_is_completed:
                self._scheduler.schedule()  # the others may have waited for this one only

    def _leave_place_empty(self, node: Any) -> None:
        """pytest-xdist replaces a dead worker by one of its spec: make that a process that does nothing."""
        node.gateway.spec.python = None
        node.gateway.spec.bpfmaps = IDLE

    def _last_entry(self, node: Any) -> Entry:
        found = self.journal.last(node.gateway.spec.id)
        if found is None or found.event == "ready":
            text = "VmLostError: the process that runs the guest was killed"
            return Entry(node.gateway.spec.id, "lost", text=text)
        return found

    def _report_failed_kernel(self, kernel: str, entry: Entry) -> None:
        report = pytest.CollectReport(
            nodeid=f"kernel {kernel}", outcome="failed", longrepr=f"{entry.text}\n{entry.console}", result=[]
        )
        self.config.hook.pytest_collectreport(report=report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """The test that killed its guest: say why, with the console's last lines."""
        kernel = report.node.gateway.spec.bpfmaps
        if kernel is None:
            return
        entry = self._last_entry(report.node)
        report.when = "call"
        report.user_properties.append((KERNEL, kernel))
        path, _, test = crashitem.partition("::")
        report.location = (path, None, test.replace("::", "."))
        report.longrepr = f"{entry.text}\nwhile it ran {crashitem}"
        if entry.console:
            report.sections.append((f"Console of kernel {kernel}", entry.console))
        if not self._scheduler.has_more_for(kernel):
            self._leave_place_empty(report.node)


def _require_xdist(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("xdist"):
        blocked = config.pluginmanager.is_blocked("xdist")
        raise pytest.UsageError(
            MISSING.format("switched off", "leave out -p no:xdist")
            if blocked
            else MISSING.format("not installed", "pip install 'pytest-bpfmaps[vm]'")
        )
    if config.getoption("usepdb", False):
        raise pytest.UsageError(
            "--pdb cannot be used in guests, which are other processes\n  -> debug with --bpf-kernel=host"
        )
