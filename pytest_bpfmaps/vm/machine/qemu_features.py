"""What the QEMU of this machine offers. QEMU itself is asked, once for each binary, before a guest starts.

Versions 7.2 to 11.1 differ in CPU features, in how they save a state, and in options. A QEMU that does not
answer, or that lacks what guests need, is reported here. Else the first sign would be a guest that never
comes up. Source: ``docs/interop/qmp-spec`` and ``qapi/`` in QEMU's sources.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_bpfmaps import paths
from pytest_bpfmaps.cache.stored_files import own, read_json, remember
from pytest_bpfmaps.errors import VmError
from pytest_bpfmaps.vm.machine.architecture import Architecture
from pytest_bpfmaps.vm.machine.child_process import die_with

SLOW = 40  # how many times longer an answer may take than this start of QEMU
FORMAT = 1  # of the file in the cache
ANSWER_SECONDS = 20.0  # QEMU 7.2 to 11.1 answer in 0.05 to 0.2 s on a quiet machine
_COMMAND = ("-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio")
_QUESTIONS: tuple[dict[str, Any], ...] = (
    {"execute": "qmp_capabilities"},
    {
        "execute": "query-cpu-model-expansion",
        "arguments": {"type": "full", "model": {"name": "max"}},
        "id": "cpu",
    },
    {"execute": "qom-list-types", "id": "types"},
    {"execute": "query-qmp-schema", "id": "schema"},
)
_KEPT_TYPES = ("virt", "memory-backend-", "monitor-")  # prefixes of the types that are kept


@dataclass(frozen=True)
class QemuFeatures:
    """What one QEMU binary answered.

    - `version` is as QEMU tells it.
    - `cpu_properties` are those of the model ``max``.
    - `types` are names of devices and objects.
    - `migrates_to_file` is whether it takes ``file:`` (since QEMU 8.2).
    - `seconds` is how long it took to start and to answer; that shows how fast this machine is.
    """

    version: str
    cpu_properties: frozenset[str]
    types: frozenset[str]
    migration_capabilities: frozenset[str]
    migrates_to_file: bool
    seconds: float

    @property
    def patience(self) -> float:
        """Seconds to wait for an answer of a QEMU that runs a guest and may be busy."""
        return max(ANSWER_SECONDS, SLOW * self.seconds)

    def emulated_cpu(self, arch: Architecture) -> str:
        """Returns the argument of ``-cpu`` where KVM is missing. What `arch` switches off is off."""
        unwanted = [name for group in arch.cpu_features_off for name in group if name in self.cpu_properties]
        return ",".join([arch.emulated_cpu, *(f"{name}=off" for name in unwanted)])

    def monitor_arguments(self, chardev: str) -> list[str]:
        """Returns QEMU's arguments for a monitor on the character device `chardev`."""
        if "monitor-qmp" in self.types:  # since QEMU 11.1, which warns of -mon
            return ["-object", f"monitor-qmp,id={chardev}-qmp,chardev={chardev}"]
        return ["-mon", f"chardev={chardev},mode=control"]

    def check(self, arch: Architecture) -> None:
        """Raises VmError when this QEMU lacks a device that guests need; a distribution may leave it out."""
        wanted = ("virtserialport", *(f"{kind}-{arch.bus}" for kind in ("virtio-serial", "virtio-9p")))
        missing = [name for name in wanted if name not in self.types]
        if missing:
            raise VmError(
                "cannot start a guest",
                on=f"with {arch.qemu} {self.version}",
                why=f"it was built without {', '.join(missing)}",
                fix=f"install a QEMU that has it (Debian, Ubuntu: apt install {arch.package})",
            )

    def can_save(self) -> str:
        """Returns why this QEMU can't save a state without the memory; empty when it can."""
        lacks = [name for name in ("x-ignore-shared",) if name not in self.migration_capabilities]
        lacks += [name for name in ("memory-backend-file",) if name not in self.types]
        return f"QEMU {self.version} has no {', '.join(lacks)}" if lacks else ""


def features(binary: str) -> QemuFeatures:
    """Returns what the QEMU at the path `binary` offers.

    Raises VmError when it does not answer as QEMU does.
    """
    status = os.stat(binary)
    key = f"{FORMAT} {os.path.realpath(binary)} {status.st_size} {status.st_mtime_ns}"
    memory = own(paths.cache_dir()) / "qemu.json"
    known = read_json(memory)
    if key not in known:
        known[key] = _ask(binary)
        remember(memory, dict(list(known.items())[-4:]))  # keep the last few binaries
    facts = known[key]
    sets = {name: frozenset(facts[name]) for name in ("cpu_properties", "types", "migration_capabilities")}
    return QemuFeatures(**{**facts, **sets})


def _ask(binary: str) -> dict[str, Any]:
    began = time.monotonic()
    try:
        messages, said, timed_out = _converse(binary)
    except OSError as error:
        raise _useless(binary, error.strerror or str(error)) from None
    if timed_out:
        raise _useless(binary, f"it did not answer within {ANSWER_SECONDS:g} s", said)
    try:
        answers = {message["id"]: message.get("return") for message in messages if "id" in message}
        return _facts(messages[0]["QMP"]["version"], answers, time.monotonic() - began)
    except (LookupError, TypeError, AttributeError):
        raise _useless(binary, "it does not speak QEMU's monitor protocol", said) from None


def _converse(binary: str) -> tuple[list[dict[str, Any]], str, bool]:
    """Returns the messages up to the last answer, the text on stderr, and whether the time was over before.

    This ends QEMU itself: after ``quit`` it may end before it has written all of a long answer. The whole
    process group ends, because `binary` may be a script that starts QEMU.
    """
    command = [binary, *_COMMAND]
    pipe, parent, messages = subprocess.PIPE, os.getpid(), []
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=said,
            process_group=0,
            preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - no lock is held here
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(ANSWER_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write("".join(json.dumps(question) + "\n" for question in _QUESTIONS).encode())
                process.stdin.flush()
            for line in process.stdout:
                message = _message(line)
                messages.append(message)
                if message.get("id") == _QUESTIONS[-1]["id"]:
                    break
        finally:
            timed_out = timer.finished.is_set()
            timer.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(BrokenPipeError):
                process.stdin.close()
        said.seek(0)
        return messages, said.read().decode(errors="replace").strip(), timed_out


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _facts(version: dict[str, Any], answers: dict[str, Any], seconds: float) -> dict[str, Any]:
    numbers = version["qemu"]
    number = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
    enums = [
        {member["name"] for member in entry.get("members", [])} | set(entry.get("values", []))
        for entry in answers["schema"]
        if entry["meta-type"] == "enum"
    ]
    cpu = answers["cpu"] or {"model": {"props": {}}}  # a QEMU without emulation has no such model
    return {
        "version": f"{number} ({version['package']})" if version["package"] else number,
        "cpu_properties": sorted(cpu["model"]["props"]),
        "types": sorted(t["name"] for t in answers["types"] if t["name"].startswith(_KEPT_TYPES)),
        "migration_capabilities": sorted(next((e for e in enums if {"xbzrle", "postcopy-ram"} <= e), ())),
        "migrates_to_file": any({"socket", "exec", "rdma", "file"} <= enum for enum in enums),
        "seconds": round(seconds, 3),
    }


def _useless(binary: str, why: str, said: str = "") -> VmError:
    return VmError(
        "cannot start a guest",
        on=f"with {binary}",
        why=why,
        fix=f"run `{binary} {' '.join(_COMMAND)}`: QEMU greets with a line of JSON",
        details=said or None,
    )
