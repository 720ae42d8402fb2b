"""Makes C lines out of one guest's programs and QEMU's record: the gateway's part of coverage."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any, Self

from pytest_bpfmaps.btf.types import Btf
from pytest_bpfmaps.errors import BpfError, UnsupportedError
from pytest_bpfmaps.vm.executed.lines import Counts, lines_of
from pytest_bpfmaps.vm.executed.plugin import plugin_for
from pytest_bpfmaps.vm.executed.programs import Program, read_program
from pytest_bpfmaps.vm.executed.record import Block, Part, Recording
from pytest_bpfmaps.vm.machine.qemu import NOTHING_MORE, Addition

PATCHED = 5  # bytes that the kernel may change in a loaded program, to switch on a call or jump
BY_KVM = "the guest runs with KVM, which tells nobody what it executes"
NO_ROOM = "QEMU's record of this guest is full"
SAME_CODE = "another program with the same machine code had the same address during the test"
IN_MODULE = "its code is where a kernel module was, which is not recorded"


class ExecutedCode:
    """Answers the guest's calls ``executed``. `why` tells why there is no recording, where there is none."""

    def __init__(self, recording: Recording | None, why: str = "") -> None:
        self._recording = recording
        self._why = why
        self._programs: dict[int, Program] = {}
        self._types: dict[int, Btf] = {}
        self._told: set[int] = set()  # ids of programs; those that have not run since are not told again

    @classmethod
    def prepare(cls, qemu: str, clang: str | None, *, kvm: bool) -> Self:
        """Prepares recording for a guest of the QEMU at the path `qemu`.

        If that is impossible, it keeps why.
        """
        if kvm:
            return cls(None, BY_KVM)
        try:
            return cls(Recording(plugin_for(qemu, clang)))
        except BpfError as error:
            return cls(None, f"{error}")

    @property
    def addition(self) -> Addition:
        """The arguments and descriptors that QEMU needs for it."""
        if self._recording is None:
            return NOTHING_MORE
        return Addition(tuple(self._recording.arguments), (self._recording.fd,))

    def answer(self, argument: str) -> str:
        """Begins to record (``{"modules": [[first, last], …]}``), or returns what ran since the last time.

        ``{"count": [[first, last], …]}`` is answered by how many instructions of these parts have run.

        Raises UnsupportedError where nothing is recorded, ValueError for nonsense.
        """
        asked = json.loads(argument)
        if self._recording is None:
            raise UnsupportedError("cannot record what runs", on="in this guest", why=self._why)
        if "modules" in asked:
            self._recording.begin([(int(first), int(last)) for first, last in asked["modules"]])
            return "{}"
        if "count" in asked:
            return json.dumps({"executed": self._total(asked["count"], self._recording)})
        return json.dumps(self._tell(asked, self._recording))

    def _total(self, asked: Iterable[Any], recording: Recording) -> int:
        parts = [(int(first), int(last)) for first, last in asked]
        excluded = any(_overlap(part, other) for part in parts for other in recording.excluded)
        if why := IN_MODULE if excluded else NO_ROOM if recording.lost else "":
            raise UnsupportedError("cannot count the instructions", on="of a program", why=why)
        return recording.total(parts)

    def _tell(self, asked: dict[str, Any], recording: Recording) -> dict[str, Any]:
        for number, data in asked["types"].items():
            self._types[int(number)] = Btf(base64.b64decode(data))
        for facts in asked["programs"]:
            program = read_program(facts, self._types.get(int(facts["btf_id"])))
            self._programs[program.id] = program
        counts, unsure = self._count(recording)
        told = [
            self._told_of(program, counts[number], self._refusal(program, recording, unsure))
            for number, program in self._programs.items()
            if counts[number].executed or number not in self._told
        ]
        self._told |= self._programs.keys()
        for number in map(int, asked["ended"]):
            self._programs.pop(number, None)
            self._told.discard(number)
        return {"programs": told, "missed": asked["missed"], "lost": asked["lost"]}

    def _count(self, recording: Recording) -> tuple[dict[int, Counts], set[int]]:
        counts = {number: Counts() for number in self._programs}
        unsure: set[int] = set()
        for block in recording.read():
            if block.owner is None:
                owners = self._owners(block)
                if not owners:
                    continue
                if not all(each.has_lines_of(owners[0]) for each in owners):
                    unsure |= {each.id for each in owners}
                block.owner = owners[-1].id
            if block.owner in counts:
                counts[block.owner].add(block)
        return counts, unsure

    def _owners(self, block: Block) -> list[Program]:
        """Returns the programs whose code a block is: those that fit best."""
        found: dict[int, list[Program]] = {}
        for program in self._programs.values():
            differing = program.differing(block.address, block.code)
            if differing is not None and differing <= PATCHED:
                found.setdefault(differing, []).append(program)
        return found[min(found)] if found else []

    def _told_of(self, program: Program, counts: Counts, why: str) -> dict[str, Any]:
        told: dict[str, Any] = {"id": program.id, "name": program.name, "pid": program.pid}
        told |= {"comm": program.comm, "ran": bool(counts.executed), "first": program.id not in self._told}
        return told | ({"why": why} if why else {"files": lines_of(program, counts)})

    def _refusal(self, program: Program, recording: Recording, unsure: Iterable[int]) -> str:
        if program.why:
            return program.why
        if recording.lost:
            return NO_ROOM
        if any(_overlap((f.first, f.last), part) for f in program.functions for part in recording.excluded):
            return IN_MODULE
        return SAME_CODE if program.id in unsure else ""


def _overlap(one: Part, other: Part) -> bool:
    return one[0] < other[1] and other[0] < one[1]
