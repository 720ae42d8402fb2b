"""The process that execnet takes for a Python interpreter. It starts a guest, and connects it with execnet.

    python -m pytest_bpfmaps.vm.gateway KERNEL [options] -u -c BOOTSTRAP

execnet sends one line that would make a worker of any interpreter. The guest has execnet itself, so this
process answers the line at once. Then pytest-xdist starts the next guest while this one boots. From then on
this process passes bytes on. Whatever happens, the guest ends with this process, and this process ends with
its stdin or its parent.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.cache.stored_files import listening
from pytest_bpfmaps.errors import BpfError, Explanation, VmError, VmLostError, VmTimeoutError
from pytest_bpfmaps.vm.boot.start import DAMAGED, Attempt, Booted, boot
from pytest_bpfmaps.vm.gateway import journal
from pytest_bpfmaps.vm.gateway.answers import answer
from pytest_bpfmaps.vm.gateway.artifacts import Artifacts
from pytest_bpfmaps.vm.gateway.debug_terminal import LentTerminal
from pytest_bpfmaps.vm.gateway.execnet_bootstrap import CHUNK, Bootstrap, pump
from pytest_bpfmaps.vm.gateway.execnet_messages import pass_on
from pytest_bpfmaps.vm.gateway.gdb_server import GdbServer
from pytest_bpfmaps.vm.gateway.hung_guest import SHORTEST
from pytest_bpfmaps.vm.gateway.job import job
from pytest_bpfmaps.vm.gateway.options import parse
from pytest_bpfmaps.vm.gateway.piped_input import PipedInput
from pytest_bpfmaps.vm.gateway.requests import Requests
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_content
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.child_process import die_with_parent, stopped_process, waited_for_processor
from pytest_bpfmaps.vm.machine.kvm import Verdict, judge
from pytest_bpfmaps.vm.machine.qemu import (
    END_SECONDS,
    NOTHING_MORE,
    Addition,
    Machine,
    MachineConfig,
    find_qemu,
)
from pytest_bpfmaps.vm.protocol.phases import IS_PREPARED, Countdown, Phase, Watch, WorkerStep, is_name
from pytest_bpfmaps.vm.protocol.rpc import GARBAGE, Lines

if TYPE_CHECKING:
    from pytest_bpfmaps.vm.executed.session import ExecutedCode

_SAID = (Phase.START, Phase.COLLECTION, Phase.END)  # steps that pytest does not know of by itself
LEAVE_ALONE = "leave $BPFMAPS_CONTROL_FD and the ports /dev/vport* alone: this harness uses them"
GARBLED = f"-> {LEAVE_ALONE}"
_MOST_CALLS = 16  # a worker makes one at a time
_MOST_SHOWN = 160  # characters of a message that is none of the harness's
FORKED = "-> end the process in the test by os._exit(0), also after an exception"


Ready = tuple[Kernel, Booted]
"""A guest that has booted and waits for its job."""


def shape_of(options: argparse.Namespace, kernel: Kernel) -> MachineConfig:
    """Returns the shape of the guest that the options ask for."""
    verdict = judge(kernel) if options.judge else Verdict(options.kvm)
    return MachineConfig(options.cpus, options.memory, verdict.kvm, options.network)


class Gateway:
    """One guest, from its start to its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.worker, self.model = "?", "main_thread_only"
        self.release = ""
        self.started = 0.0
        self.timeout: float = options.timeout
        self.console_before = 0  # size of the console in bytes when the test began
        self.stacks = ""
        self.attempt: Attempt | None = None  # how the guest was started
        self.watch: Watch | None = None  # set when the guest is ready
        # What the threads below report to the main thread: what happened, and a value that belongs to it.
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.later: deque[tuple[str, Any]] = deque()  # events that were looked at, and not yet handled
        self.calls: queue.Queue[dict[str, Any]] = queue.Queue(_MOST_CALLS)
        # While the guest starts, pytest-xdist may write more than a pipe holds. Without this queue it would
        # wait for a reader.
        self.input: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.attending = False  # whether the guest is ready, and `_attend` handles events
        self.faults: set[tuple[str, str]] = set()
        self.executed: ExecutedCode | None = None
        self.artifacts = Artifacts(self.options.artifacts)
        self.terminal = LentTerminal(self.options.others, lambda event: self.events.put((event, None)))
        self.gdb: GdbServer | None = None
        self.piped = None if options.input is None else PipedInput(options.input, options.others)

    def run(self, ready: Ready | None = None) -> int:
        """Serves until pytest or the guest ends. Returns the exit status. `ready` is a guest that waits."""
        bootstrap = Bootstrap.take()
        self.worker, self.model = bootstrap.worker, bootstrap.model
        if self.options.gdb and self.options.artifacts is not None:
            self.gdb = GdbServer(self.options.artifacts, self.worker)
        self.input.put(bootstrap.rest)
        self._spawn(self._read_stdin)
        try:
            self.started = time.monotonic()
            kernel, booted = ready or self._start()
            if note := booted.note(kernel):
                self.tell("another-way", text=note)
            self.timeout = Verdict(booted.attempt.shape.kvm).stretch(self.options.timeout)
            self.release, self.attempt = booted.release, booted.attempt
            with booted.machine as machine:
                self.attending = True
                with showing(machine) if self.options.output else nullcontext():
                    return self._attend(machine, kernel, booted.control)
        except VmError as error:
            event = {VmTimeoutError: "hung", VmLostError: "lost"}.get(type(error), "failed")
            self.tell(event, text=_without_details(error), console=error.details or "", stacks=self.stacks)
            return 1

    def _start(self) -> Ready:
        kernel = Catalogue().select(self.options.kernel)[0]
        self.used = kernel.in_use()  # closed by the end of this process
        check_content(kernel, "boot/config")
        shape = shape_of(self.options, kernel)
        more, how = self._record(kernel, shape), (self.options.way, shape, self.options.timeout)
        return kernel, boot(kernel, *how, more=more, preparing=self._tell_preparing)

    def _record(self, kernel: Kernel, shape: MachineConfig) -> Addition:
        """Prepares to record executed code, if the options say so. Returns what QEMU needs for it."""
        if not self.options.executed:
            return NOTHING_MORE
        from pytest_bpfmaps.vm.executed.session import ExecutedCode

        self.executed = ExecutedCode.prepare(find_qemu(kernel.arch), self.options.clang, kvm=shape.kvm)
        return self.executed.addition

    def _tell_preparing(self, attempt: Attempt) -> None:
        seconds = "a few seconds" if attempt.shape.kvm else "about 15 s"
        self.tell("doing", text=f"{IS_PREPARED}, once, {seconds}: boot, imports, save")

    @property
    def facts(self) -> dict[str, Any]:
        """Where the guest is, for the journal."""
        if self.watch is None:
            return {}
        return {"test": self.watch.last_test, "in_test": self.watch.step.phase is Phase.TEST}

    def _attend(self, machine: Machine, kernel: Kernel, control: Lines) -> int:
        self.tell("ready", seconds=time.monotonic() - self.started)
        countdown = Countdown(lambda: waited_for_processor(machine.process.pid))
        watch = self.watch = Watch(self.timeout, countdown)
        control.send(
            {
                **job(kernel, self.timeout),
                "execmodel": self.model,
                "output": self.options.output,
                "id": f"{self.worker}-worker",
            }
        )
        self._spawn(self._listen, control)
        self._spawn(self._wait_for_end, machine)
        self._spawn(self._answer_all, control, kernel, machine)
        seconds = max(SHORTEST, self.timeout / 4)
        self._spawn(
            pass_on, machine.stream.fileno(), 1, seconds, lambda why: self.events.put(("stream", why))
        )
        self._spawn(self._pump_in, machine.stream)
        while True:
            event, value = self._next_event(machine, kernel, watch)
            if event == "step":
                self._enter(machine, watch, value)
            elif event == "input":  # the worker has something to do from now on
                self._enter(machine, watch, WorkerStep(Phase.START))
            elif event == "call":
                self._take_call(watch, value)
            elif event == "hold":
                countdown.hold()
            elif event == "answered":
                countdown.go_on()
            elif event == "fault":
                self._note_fault(watch, *value)
            elif event == "stdin":
                return 0
            elif event == "stream":
                on, words = f"kernel {kernel.name} ({self.release})", machine.last_words(self.console_before)
                why, fix = self._or_damage(kernel, value, LEAVE_ALONE)
                raise VmLostError("guest ended:", on=on, why=why, fix=fix, details=words)
            elif event == "end":
                raise self._lost(machine, kernel, value)

    def _next_event(self, machine: Machine, kernel: Kernel, watch: Watch) -> tuple[str, Any]:
        while True:
            if self.later:
                return self.later.popleft()
            with suppress(queue.Empty):
                return self.events.get(timeout=watch.countdown.pause)
            if watch.countdown.is_over():
                self._check_alive(machine, kernel, watch)
                watch.start_again()

    def _check_alive(self, machine: Machine, kernel: Kernel, watch: Watch) -> None:
        """Raises VmTimeoutError, except where the guest is alive and waits for orders, or has gone on."""
        from pytest_bpfmaps.vm.gateway.guest_exit import LEAVE_ON, switched_off
        from pytest_bpfmaps.vm.gateway.hung_guest import ask, is_alive

        if self.gdb is not None and self.gdb.has_stopped(machine):
            return
        stopped = stopped_process(machine.process.pid)
        if stopped is None and watch.step.phase is Phase.ORDERS and is_alive(machine, self.timeout):
            return
        words, why = machine.last_words(self.console_before), watch.why
        fix = f"look at the stacks below; --bpf-vm-timeout gives it more time{self._stretched()}"
        if stopped is not None:
            why += f"; QEMU, process {stopped}, is stopped by a signal or a debugger"
            fix = "find out what stops it"
        elif halted := switched_off(words):
            why, fix = halted, LEAVE_ON
        else:
            stacks = ask(machine, self.timeout)
            if self._moved_on():
                return
            self.stacks = stacks
            if machine.process.poll() is not None:  # only a panic showed the stacks
                words = machine.last_words(self.console_before)
        what = f"{watch.noun} hung in kernel"
        told = self._or_damage(kernel, f"{why}; the guest was ended", fix)
        raise VmTimeoutError(what, on=kernel.name, why=told.why, fix=told.fix, details=words)

    def _stretched(self) -> str:
        """Returns what to know of that option, if a guest has more time than it says."""
        factor = self.timeout / self.options.timeout
        return (
            f" (it is {self.options.timeout:g} s, times {factor:g} in an emulated guest)"
            if factor > 1
            else ""
        )

    def _moved_on(self) -> bool:
        """Returns whether the worker began another step since the last event.

        Then it is slow, and does not hang.
        """
        with suppress(queue.Empty):
            while True:
                self.later.append(self.events.get_nowait())
        return any(event == "step" for event, _ in self.later)

    def _enter(self, machine: Machine, watch: Watch, step: WorkerStep) -> None:
        watch.enter(step)
        if step.phase is Phase.TEST or step.phase in _SAID:
            self.console_before = machine.console.size()
        if step.phase in _SAID:
            self.tell("doing", text=str(step))

    def _note_fault(self, watch: Watch, test: str, text: str) -> None:
        """Tells a fault once for each test."""
        fault = (test or watch.last_test, text.partition(":")[0])
        if fault not in self.faults:
            self.faults.add(fault)
            self.tell("fault", text=text, test=fault[0])

    def _spawn(self, target: Any, *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    def _listen(self, control: Lines) -> None:
        for message in control:
            if step := WorkerStep.read(message):
                self.events.put(("step", step))
            elif "call" in message:
                self.events.put(("call", message))
            elif isinstance(test := message.get("fork"), str) and is_name(test):
                who = "this test" if test else "a file"
                what = f"a process that {who} forked came back out of it, as a second pytest, and was ended"
                self.events.put(("fault", (test, f"{what}\n  {FORKED}")))
            else:
                text = message.get(GARBAGE) or repr(message)[:_MOST_SHOWN]
                what = f"a line came on the port of this harness, and the harness did not send it: {text}"
                self.events.put(("fault", ("", f"{what}\n  {GARBLED}")))

    def _wait_for_end(self, machine: Machine) -> None:
        self.events.put(("end", machine.process.wait()))

    def _read_stdin(self) -> None:
        while chunk := os.read(0, CHUNK):
            self.input.put(chunk)
        if not self.attending:  # pytest ended while the guest started, or was saved
            os._exit(0)
        self.events.put(("stdin", None))

    def _pump_in(self, stream: socket.socket) -> None:
        is_first = True
        try:
            while True:
                data = self.input.get()
                if data and is_first:
                    self.events.put(("input", None))
                    is_first = False
                stream.sendall(data)
        except OSError:
            return  # the guest has ended; _wait_for_end reports it

    def _take_call(self, watch: Watch, message: dict[str, Any]) -> None:
        """Has a request answered; a worker asks for one thing at a time, so more than a few are a fault."""
        try:
            self.calls.put_nowait(message)
            watch.countdown.hold()  # the guest waits for the host
        except queue.Full:
            what = f"more than {_MOST_CALLS} requests at a time came on the port of this harness"
            self._note_fault(watch, "", f"{what}\n  {GARBLED}")

    def _answer_all(self, control: Lines, kernel: Kernel, machine: Machine) -> None:
        while True:
            message = self.calls.get()
            answer(control, message, self._requests(kernel, machine).answer)
            self.events.put(("answered", None))

    def _requests(self, kernel: Kernel, machine: Machine) -> Requests:
        from pytest_bpfmaps.vm.kernels.vmlinux_choice import Setting

        def vmlinux() -> str | None:
            chosen = Setting(self.options.vmlinux, run=(kernel,)).choose().path
            if chosen is None and kernel.btf is not None:
                check_content(kernel, "btf")
                return str(kernel.btf)
            return chosen

        terminal = partial(self.terminal.use, machine.terminal)
        gdb = None if self.gdb is None else partial(self.gdb.open, machine, kernel)
        line = None if self.piped is None else self.piped.read_line
        more = {"terminal": terminal, "gdb": gdb, "line": line}
        return Requests(self.options.clang, vmlinux, self.executed, self.artifacts, **more)

    def tell(self, event: str, **facts: Any) -> None:
        """Writes an entry into the journal that pytest reads."""
        facts = self.facts | facts
        journal.write(self.options.journal, journal.JournalEntry(self.worker, event, self.release, **facts))

    def _lost(self, machine: Machine, kernel: Kernel, status: int) -> VmError:
        # Empty when the guest died before its test was told.
        heard = machine.console.text(self.console_before).strip()
        words = machine.last_words(self.console_before if heard else 0)
        from pytest_bpfmaps.vm.gateway.guest_exit import why_it_ended

        why, fix = self._or_damage(kernel, *why_it_ended(heard, words, status))
        on = f"kernel {kernel.name} ({kernel.release})"
        return VmLostError("guest died:", on=on, why=why, fix=fix, details=words)

    def _or_damage(self, kernel: Kernel, why: str, fix: str | None) -> Explanation:
        """Returns why the guest ended, and what to do. A damaged state may be the cause, and is deleted."""
        if self.attempt is not None and self.attempt.drop_if_damaged(kernel):
            return Explanation(f"{why}; {DAMAGED}", "run the test again, from a new state")
        return Explanation(why, fix)


@contextmanager
def showing(machine: Machine) -> Iterator[None]:
    """Writes to stderr everything that the worker writes to its own stderr. Ends the machine."""
    writer = threading.Thread(target=pump, args=(machine.output.fileno(), 2), daemon=True)
    writer.start()
    try:
        yield
    finally:
        machine.end()
        writer.join(END_SECONDS)  # a limit, because stderr may be a pipe that nobody reads


def _without_details(error: BpfError) -> str:
    text = BpfError(error.what, on=error.on, why=error.why, fix=error.fix)
    return "\n".join([f"{type(error).__name__}: {text}", *error.__notes__])


def serve(gateway: Gateway, ready: Ready | None = None) -> int:
    """Runs one gateway, and returns its exit status."""
    with listening(lambda line: gateway.tell("another-way", text=line)):
        try:
            return gateway.run(ready)
        finally:
            gateway.terminal.close()
            if gateway.gdb is not None:
                gateway.gdb.close()


def main() -> None:
    """Runs one gateway as a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest handles Ctrl-C, and closes our stdin
    die_with_parent()
    status = serve(Gateway(parse(sys.argv[1:])))
    os._exit(status)  # threads may read from pipes that nobody will close
