"""Lets a person attach gdb to the kernel of a guest (``--bpf-gdb``).

QEMU itself serves gdb, from the first failing test on. Its socket is below the run's temporary files, or in a
new folder below ``/tmp`` where their path is too long for a socket. gdb stops the machine when it attaches.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.kernels.debug_vmlinux import Search, find_vmlinux, how_to_get_it
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.machine.qemu import Machine
from pytest_bpfmaps.vm.protocol.phases import printable

_LONGEST = 107  # bytes of the path of a socket: unix(7)
_STOPPED = ("paused", "debug")  # what QEMU says of a machine that gdb has stopped


class GdbServer:
    """QEMU's server for gdb in one guest. `folder` is where its socket goes. Safe to close again."""

    def __init__(self, folder: str, worker: str) -> None:
        self._path = Path(folder).resolve() / f"gdb-{worker}"
        self._short: Path | None = None
        self._is_open = False
        self._asking = threading.Lock()  # the monitor takes one command at a time

    def open(self, machine: Machine, kernel: Kernel, argument: str) -> str:
        """Has QEMU serve gdb. Returns what to tell the person.

        `argument` is JSON that the guest has sent: `kernel_addresses.addresses`. Raises VmError.
        """
        facts = json.loads(argument)
        if not self._is_open:
            self._serve(machine)
        return "\n".join(self._lines(kernel, facts))

    def _serve(self, machine: Machine) -> None:
        if len(os.fsencode(self._path)) > _LONGEST:
            self._short = Path(tempfile.mkdtemp(prefix="bpfmaps-", dir="/tmp"))  # no other user can enter it
            self._path = self._short / self._path.name
        device = f"unix:{str(self._path).replace(',', ',,')},server=on,wait=off"  # a comma ends a value
        command = f"gdbserver {json.dumps(device, ensure_ascii=False)}"
        with self._asking:
            said = machine.monitor().call("human-monitor-command", **{"command-line": command})
        if not self._path.is_socket():
            raise VmError("cannot serve gdb", on=str(self._path), why=f"QEMU said: {str(said).strip()}")
        self._is_open = True

    def _lines(self, kernel: Kernel, facts: dict[str, Any]) -> list[str]:
        search = find_vmlinux(kernel, str(facts["build_id"]))
        text = int(facts["text"])
        lines = [f"in another terminal: {self._command(kernel, search, text)}"]
        if search.found is None:
            lines.append(f"no vmlinux with symbols was found for {kernel.release}")
            lines += [f"  {each}" for each in search.others]
            lines.append(f"  -> {how_to_get_it(kernel)}; then add its path to the command")
            lines.append(
                f"_text is at {text:#x}; all guests of this kernel have the same addresses (nokaslr)"
            )
            lines.append(f"  -> bpfmaps exec {kernel.name} -- grep -w NAME /proc/kallsyms")
        programs = [(printable(str(name)), int(address)) for name, address in facts["programs"]]
        lines += [f"BPF program at {address:#x}: {name}" for name, address in programs]
        if shutil.which(_debugger(kernel)) is None:
            lines.append(f"{_debugger(kernel)} is missing here: apt install {_debugger(kernel)}")
        return lines

    def _command(self, kernel: Kernel, search: Search, text: int) -> str:
        words = [_debugger(kernel)]
        if search.found is not None:
            words.append(str(search.found.path))
            if text and (offset := text - search.found.begin):  # KASLR has moved it
                words[1:] = ["-ex", f"symbol-file -o {offset:#x} {search.found.path}"]
        return shlex.join([*words, "-ex", f"target remote {self._path}"])

    def has_stopped(self, machine: Machine) -> bool:
        """Returns whether gdb has stopped the machine."""
        if not self._is_open:
            return False
        with self._asking, suppress(VmError):
            return machine.monitor().call("query-status").get("status") in _STOPPED
        return False

    def close(self) -> None:
        """Removes the socket."""
        with suppress(OSError):
            self._path.unlink()
        if self._short is not None:
            with suppress(OSError):
                self._short.rmdir()


def _debugger(kernel: Kernel) -> str:
    return "gdb" if kernel.arch == os.uname().machine else "gdb-multiarch"
