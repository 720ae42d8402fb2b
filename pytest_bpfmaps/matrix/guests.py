"""Runs guests as pytest-xdist workers, and reports what became of them.

The hooks are those of pytest-xdist. They are registered only in a run that may have guests. This process
collects the tests first. So a kernel without tests starts no machine, and each worker collects only the files
of its own kernel.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pytest_bpfmaps.compat import other_plugins
from pytest_bpfmaps.compat.pytest_names import temporary_folder
from pytest_bpfmaps.compat.xdist_names import process_of, tell_facts, wait_for_end
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.assignment import Lane, divide
from pytest_bpfmaps.matrix.compilers import show_lines, vmlinux_line, vmlinux_setting
from pytest_bpfmaps.matrix.guest_activity import GuestActivity
from pytest_bpfmaps.matrix.guest_conditions import check, piped_input, why_nobody_debugs
from pytest_bpfmaps.matrix.items import (
    COLLECTED,
    KERNEL_PROPERTY,
    WORKERS,
    is_bpf_item,
    kernel_of,
    with_kernel,
)
from pytest_bpfmaps.matrix.measuring import counts_instructions, records_blocks
from pytest_bpfmaps.matrix.prepared_guests import PREPARED
from pytest_bpfmaps.matrix.selection import IDLE, Selection, lane_of
from pytest_bpfmaps.matrix.startup_progress import StartupProgress
from pytest_bpfmaps.matrix.stopped_gateways import StoppedGateways
from pytest_bpfmaps.matrix.terminal_lines import write_line
from pytest_bpfmaps.matrix.unrunnable import foresee_all
from pytest_bpfmaps.matrix.worker import shows_output
from pytest_bpfmaps.matrix.worker_events import WorkerEvents
from pytest_bpfmaps.matrix.xdist_session import Workers
from pytest_bpfmaps.vm.boot.backends import VIRTME
from pytest_bpfmaps.vm.gateway import ssh
from pytest_bpfmaps.vm.gateway.journal import Journal, JournalEntry
from pytest_bpfmaps.vm.kernels.vmlinux_choice import PER_KERNEL
from pytest_bpfmaps.vm.machine.capacity import guests_at_once
from pytest_bpfmaps.vm.machine.kvm import judge

WAIT = 10.0  # pytest-xdist's own limit, in seconds: how long a guest that has ended may take to be gone


class Guests:
    """Has pytest-xdist run each test on its kernel, and turns what happens to guests into reports.

    Raises pytest.UsageError when pytest-xdist is missing or can't be used. Raises VmError when QEMU is.
    """

    def __init__(self, config: pytest.Config, selection: Selection, options: Mapping[str, Any]) -> None:
        show_lines(config)
        check(config, selection, options)
        self.config = config
        self.selection = selection
        for guest in selection.guests:
            config.add_cleanup(guest.kernel.in_use().close)
        self.journal = Journal()
        self._stopped = StoppedGateways(self.journal.path, options["bpf_vm_timeout"])
        self.verdict = judge(selection.guests[0].kernel)
        run = tuple(guest.kernel for guest in selection.guests)
        self.vmlinux = replace(vmlinux_setting(config), run=run).choose()
        self._options = options
        self._workers = config.stash[WORKERS] if WORKERS in config.stash else Workers(config)
        self._elsewhere = self._workers.take(ssh.machine)
        self._lanes: dict[str, Lane] = {}
        self._homes: dict[str, str] = {}  # test -> the lane that has it
        self._waiting: list[Lane] = []  # these start when another guest has ended
        self._foreseen: list[pytest.Item] = []
        self._lives: dict[str, int] = {}
        self._ended: list[Any] = []
        self._put_back: set[str] = set()
        self._nodes = GuestActivity()
        config.pluginmanager.register(self._nodes, "bpfmaps-doings")
        self._said: set[str] = set()
        self._scheduler: Any = None
        self._others = ""
        self._input = piped_input(config)

    def header(self, with_types: bool = True) -> list[str]:
        """Returns the lines of the header: the kernels, and why they run without KVM, if they do.

        With `with_types` the last line says where ``vmlinux.h`` comes from.
        """
        lines = [f"bpfmaps: {self.selection.header('KVM' if self.verdict.kvm else 'emulated')}"]
        if not self.verdict.kvm:
            lines.append(f"bpfmaps: guests are emulated: {self.verdict.cause}")
        if with_types:
            lines.append(vmlinux_line(self.config, self.vmlinux))
        return lines

    def begin(self, session: pytest.Session) -> None:
        """Starts the guests that have tests, and workers for the host's tests. Collection is complete."""
        if session.testsfailed and not self.config.option.continue_on_collection_errors:
            return
        self._records = records_blocks(self.config) or counts_instructions(session.items)
        placed = [(item, self._kernel_of(item)) for item in session.items]
        missing = foresee_all(self.config, placed, self.selection.guests)
        collected = self.config.stash[COLLECTED]
        lanes = divide(
            [(i, kernel, self._id_there(i, kernel)) for i, kernel in placed],
            [guest.kernel.name for guest in self.selection.guests],
            session.config.rootpath,
            unsure=collected.skipped,
            unable=missing,
            all_wanted=collected.are_all_wanted(),
        )
        if not self._workers.asked and all(lane.kernel == HOST for lane in lanes):
            return  # pytest itself runs them, here
        self._foreseen = [item for item in session.items if item.nodeid in missing]
        self._lanes = {lane.name: lane for lane in lanes}
        self._homes = {test: lane.name for lane in lanes for test in lane.tests}
        guests = [lane for lane in lanes if lane.kernel != HOST]
        self._others = why_nobody_debugs(self.config, [lane.kernel for lane in lanes])
        most = guests_at_once(self._options["bpf_vm_jobs"], self._options["bpf_vm_memory"])
        self._waiting = guests[most:]
        hosts = (self._workers.hosts or [f"popen//id={HOST}"]) if HOST in self._lanes else []
        # Guests first: they boot while the host's worker starts.
        specs = [*map(self._spec, guests[:most]), *hosts]
        from pytest_bpfmaps.matrix.scheduling import KernelScheduling

        self._scheduler = KernelScheduling(
            {lane.name: 1 for lane in guests} | ({HOST: len(hosts)} if hosts else {})
        )
        self._workers.begin(session, collected.known(), specs)
        progress = StartupProgress(self.config, self.journal, self._nodes, self._workers.in_main_thread)
        self.config.pluginmanager.register(progress, "bpfmaps-startup-progress")
        progress.begin()

    def _kernel_of(self, item: pytest.Item) -> str:
        if self.selection.explicit or not is_bpf_item(item):
            return kernel_of(item)
        return self.selection.names[0]

    def _id_there(self, item: pytest.Item, kernel: str) -> str:
        explicit = self.selection.explicit or kernel == HOST
        return item.nodeid if explicit else with_kernel(item.nodeid, kernel)

    def _spec(self, lane: Lane) -> str:
        """Returns an execnet specification whose interpreter is a gateway."""
        options = self._options
        there = next((one for one in self._elsewhere if one.has(lane.kernel)), None)
        (guest,) = (guest for guest in self.selection.guests if guest.kernel.name == lane.kernel)
        start = [guest.pattern, "--way", options["bpf_vm"], "--cpus", str(options["bpf_vm_cpus"])]
        start += ["--memory", options["bpf_vm_memory"], "--timeout", str(options["bpf_vm_timeout"])]
        start += ["--network"] if options["bpf_vm_network"] else []
        arguments = ["--clang", options["bpf_clang"]] if options["bpf_clang"] else []
        chosen = self.vmlinux.path or PER_KERNEL
        arguments += ["--vmlinux", chosen if there is None else options["bpf_vmlinux"]]
        arguments += ["--others", self._others] if self._others else []
        arguments += ["--executed"] if self._records else []
        arguments += ["--output"] if shows_output(self.config) else []
        if there is None:
            start += ["--kvm"] if self.verdict.kvm else []
            arguments += ["--journal", self.journal.path, "--artifacts", str(temporary_folder(self.config))]
            arguments += [] if self._input is None else ["--input", self._input]
            arguments += ["--gdb"] if self.config.getoption("bpf_gdb") else []
            command = self._prepared(lane.name, start, arguments)
            command = command or [sys.executable, "-m", "pytest_bpfmaps.vm.gateway", *start, *arguments]
        else:
            command = there.command([*start, *arguments], self.journal.path)
        return f"popen//python={shlex.join(command)}//id={lane.name}//bpfmaps={lane.kernel}//lane={lane.name}"

    def _prepared(self, worker: str, start: list[str], arguments: list[str]) -> list[str] | None:
        """Returns the command of a guest that waits, if one does (``--bpf-watch``)."""
        prepared = self.config.stash.get(PREPARED, None)
        if prepared is None or self._records or self._options["bpf_vm"] == VIRTME:
            return None
        prepared.note(start)
        return prepared.command(worker, start, arguments)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Skips the tests that can be skipped without a guest, then runs pytest-xdist's or pytest's loop.

        After the loop it reports what tests did to their guests, besides their results.
        """
        for item in self._foreseen:
            self.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        result = yield
        for name in self._nodes.names:
            for entry in self.journal.entries(name):
                if entry.event == "fault":
                    self._report_fault(entry)
        return result

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Says what each guest is doing that Ctrl-C is about to end."""
        if excinfo.type is not KeyboardInterrupt:
            return
        for doing in self._nodes.doings(self.journal, self._scheduler):
            write_line(self.config, f"bpfmaps: interrupted: guest {doing}")

    def pytest_unconfigure(self) -> None:
        """Waits for guests that have ended, and removes the journal. execnet may not wait for them."""
        self._stopped.close()
        self._wait_for_ended()
        self.journal.close()

    def _wait_for_ended(self) -> None:
        for gateway in self._ended:
            wait_for_end(gateway, WAIT)
        self._ended.clear()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """Lets pytest-xdist go on while the guest boots, and names the worker after its kernel."""
        lane = lane_of(gateway)
        if lane in (HOST, IDLE):
            return
        # pytest-xdist would ask the worker for these, and wait. Any process of this interpreter answers the
        # same.
        facts = {
            "executable": sys.executable,
            "version_info": tuple(sys.version_info),
            "platform": sys.platform,
        }
        tell_facts(gateway, {**facts, "cwd": str(self.config.invocation_params.dir), "pid": 0})
        life = self._lives[lane] = self._lives.get(lane, 0) + 1
        prepared = self.config.stash.get(PREPARED, None)
        itself = None if prepared is None else prepared.processes.pop(lane, None)
        self._stopped.add(lane, process_of(gateway), gateway.spec.bpfmaps, itself)
        if life > 1:
            gateway.id = f"{lane}-{life}"

    @pytest.hookimpl(optionalhook=True, trylast=True)  # after other plugins: what they say may need a change
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker what it is, and what to do."""
        name = lane_of(node.gateway)
        if name not in (HOST, IDLE):
            self._nodes.begin(node)
            other_plugins.expect_guest(node.workerinput)
            self._check_events(node, name)
        orders = self._lanes[name].orders() if name in self._lanes else {"kernel": name}
        releases = {guest.kernel.name: guest.kernel.release for guest in self.selection.guests}
        known = {
            "pdb": self.config.getoption("usepdb"),
            "gdb": self.config.getoption("bpf_gdb"),
            "piped": self._input is not None,
            "kernels": list(self.selection.names),
            "releases": {HOST: os.uname().release, **releases},
            "vmlinux": self.vmlinux.path or PER_KERNEL,
        }
        node.workerinput["bpfmaps"] = {**orders, **known}
        if any(one.has(orders["kernel"]) for one in self._elsewhere):
            node.gateway.spec.popen = None  # pytest-xdist would send this machine's sys.path

    def _check_events(self, node: Any, name: str) -> None:
        """Has what the worker of a guest sends checked. What no worker sends is a fault of its test."""
        node.process_from_remote = WorkerEvents(
            self.config,
            node.process_from_remote,
            is_foreign=lambda test: self._homes.get(test, name) != name,
            in_hand=lambda: self._scheduler.places_in_hand(node),
            fault=partial(self.journal.note_fault, node.gateway.spec.id),
        ).take

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Says in a line when a guest was started in another way than usual, and why."""
        self._show_lines(node)

    def _show_lines(self, node: Any) -> None:
        for entry in self.journal.entries(node.gateway.spec.id):
            if entry.event == "another-way" and entry.text not in self._said:
                self._said.add(entry.text)
                write_line(self.config, f"bpfmaps: {entry.text}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Returns the scheduler that sends each test to its kernel's worker."""
        here = sum(len(lane.tests) for lane in self._lanes.values())
        more = len(self._foreseen)
        self._scheduler.prepare(
            config, log, lambda there: config.stash[COLLECTED].tell(max(here, there) + more)
        )
        return self._scheduler

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        """Reports each test that the host collected and the guest did not, because it gets no result."""
        lane = self._lanes.get(lane_of(node.gateway))
        if lane is None or lane.kernel == HOST:
            return
        # --dist=loadgroup adds @group to an id
        there = {test for one in ids for test in (one, one.rpartition("@")[0])}
        for test in lane.tests:
            if test not in there:
                self._report(
                    test,
                    f"the host collected this test, and kernel {lane.kernel} did not\n"
                    "  -> make its file define the same tests on every kernel, and skip those that can't run",
                )
        lane.tests = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Starts the next guest after one has ended. A guest that died outside a test is a failure."""
        name = lane_of(node.gateway)
        if name not in self._lanes or name == HOST:
            return
        self._nodes.end(node)
        self._stopped.forget(name)
        node.gateway.spec.popen = True
        self._show_lines(node)
        if error is None:
            node.gateway.exit()  # else pytest-xdist keeps the guest until the session ends
            self._ended.append(node.gateway)
            output = node.workeroutput
            if not (output["shouldfail"] or output["shouldstop"]):
                self._start_another()
        elif not self._scheduler.is_running(node):
            self._scheduler.give_up(name)
            entry = self._last_entry(node)
            self._report(f"kernel {name}", "\n".join(filter(None, (entry.text, entry.stacks, entry.console))))
            self._leave_place_empty(node)
            if self._scheduler.collection_is_completed:
                self._scheduler.schedule()  # the others may have waited for this one only

    def _start_another(self) -> None:
        if self._waiting and not self._workers.is_ending:
            self._wait_for_ended()  # a guest has its memory and processors until then
            self._workers.start(self._spec(self._waiting.pop(0)))

    def _leave_place_empty(self, node: Any) -> None:
        """Has pytest-xdist replace a dead worker by a process that does nothing.

        pytest-xdist starts another worker from the specification of the dead one.
        """
        spec = node.gateway.spec
        spec.python, spec.bpfmaps, spec.lane = None, None, IDLE
        self._start_another()

    def _last_entry(self, node: Any) -> JournalEntry:
        found = self.journal.end(node.gateway.spec.id)
        if found is None:
            text = "VmLostError: the process that runs the guest was killed"
            return JournalEntry(node.gateway.spec.id, "lost", text=text)
        return found

    def _report(self, nodeid: str, text: str) -> None:
        report = pytest.CollectReport(nodeid=nodeid, outcome="failed", longrepr=text, result=[])
        self.config.hook.pytest_collectreport(report=report)

    def _report_fault(self, entry: JournalEntry) -> None:
        """Reports an error of a test whose own result is reported already."""
        if not entry.test:
            self._report(f"kernel {entry.worker}", entry.text)
            return
        location = self.config.stash[COLLECTED].location(entry.test)
        report = pytest.TestReport(entry.test, location, {}, "failed", entry.text, "teardown")
        self.config.hook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any, sched: Any) -> None:
        """Reports why a guest died to the test that killed it, with the console's last lines."""
        kernel = report.node.gateway.spec.bpfmaps
        if kernel is None:
            return
        entry = self._last_entry(report.node)
        report.when = "call"
        report.user_properties.append((KERNEL_PROPERTY, kernel))
        report.location = self.config.stash[COLLECTED].location(crashitem)
        report.longrepr = f"{entry.text}\nwhile it ran {crashitem}"
        if entry.event == "hung" and not entry.in_test:
            self._blame_the_guest(report, entry, sched)
        if entry.console:
            text = entry.console.removeprefix("--- console\n")  # the section's title says that
            report.sections.append((f"Console of kernel {kernel}", text))
        if entry.stacks:
            report.sections.append((f"Stacks in kernel {kernel}", entry.stacks))
        if not self._scheduler.has_more_for(lane_of(report.node.gateway)):
            self._leave_place_empty(report.node)

    def _blame_the_guest(self, report: Any, entry: JournalEntry, sched: Any) -> None:
        """Reports a hang before or after a test as the guest's fault, not the test's.

        When the guest hung before it began the test, the test gets another guest, once.
        """
        test, when = report.nodeid, "after" if report.nodeid == entry.test else "before"
        report.longrepr = f"{entry.text}\n{when} it ran {test}"
        if when == "before":
            if test in self._put_back:
                return
            self._put_back.add(test)
            sched.mark_test_pending(test)
        report.nodeid = f"kernel {report.node.gateway.spec.bpfmaps}, {when} {test}"
        report.location = (report.location[0], None, f"hang of {report.nodeid}")
        report.user_properties = []  # it is no test of that kernel
