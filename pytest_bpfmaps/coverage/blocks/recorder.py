"""Finds out which programs a guest has, and asks its gateway what ran of them. It works where tests run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from pytest_bpfmaps.coverage.engines import Plain, Swap
from pytest_bpfmaps.errors import BpfError
from pytest_bpfmaps.kernel.cpus import online_cpus
from pytest_bpfmaps.kernel.program_code import program_code
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.vm.executed.modules import module_parts
from pytest_bpfmaps.vm.executed.reasons import reason
from pytest_bpfmaps.vm.guest.program_watch import ProgramWatcher
from pytest_bpfmaps.vm.protocol.rpc import Host

NO_GUEST = "it works in emulated guests only (--bpf-kernel=NAME)"
NOT_ASKED = "the gateway of this guest does not record what runs"


def begin() -> BlockRecorder | str:
    """Returns the recorder of this process, or why there can be none."""
    host = Host.connect()
    if host is None:
        return NO_GUEST
    try:
        host.call("executed", json.dumps({"modules": module_parts()}))
        return BlockRecorder(host, ProgramWatcher(online_cpus()))
    except BpfError as error:
        return error.why or str(error)
    except KeyError:  # the gateway has no such call
        return NOT_ASKED
    except OSError as error:
        return f"the kernel does not tell which programs are loaded: {error}"


class BlockRecorder:
    """The recorder of the engine ``blocks``, see `engines.Recorder`."""

    def __init__(self, host: Host, watcher: ProgramWatcher) -> None:
        self._host = host
        self._watcher = watcher
        self._mine: set[int] = set()  # ids of programs that this engine is to measure
        self._others: set[int] = set()  # of those that another engine measures, or none

    def before_load(self, opened: OpenedObject) -> Swap | None:
        """Leaves every object as it is."""
        return None

    def loaded(self, loaded: LoadedObject, programs: Sequence[str]) -> dict[str, str]:
        """Notes the ids; a program without machine code or line information can't be measured."""
        refused = {}
        for program in loaded.programs:
            if program.name not in programs:
                self._others.add(program.id)
                continue
            if why := _reason(program.id):
                refused[program.name] = why
            (self._others if why else self._mine).add(program.id)
        return refused

    def closing(self, loaded: LoadedObject) -> None:
        """Does nothing: QEMU keeps the counts of programs that are gone."""

    def take(self) -> list[Plain]:
        """Returns what the gateway knows of each program (`executed.session`), ``known`` and ``loader``."""
        try:
            watched = self._watcher.ask()
            told = json.loads(self._host.call("executed", watched))
        except (BpfError, OSError, ValueError) as error:
            return [{"failed": f"what ran in this guest is not known: {error}"}]
        programs = [one for program in told["programs"] if (one := self._with_loader(program))]
        return [{"programs": programs, "missed": told["missed"], "lost": told["lost"]}]

    def _with_loader(self, program: dict[str, Any]) -> dict[str, Any] | None:
        number, is_own = program["id"], program["pid"] == os.getpid()
        if number in self._others or (is_own and number not in self._mine and not program["ran"]):
            return None  # a probe of the kernel, or an object that another one has replaced
        return {**program, "known": number in self._mine}


def _reason(number: int) -> str:
    try:
        return reason(program_code(number))
    except OSError as error:
        return f"the kernel tells nothing of it: {error.strerror}"
