"""A program that another process has loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, NoReturn

from pytest_bpfmaps.errors import BpfError, ClosedError, LoadError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.btf import load_codecs
from pytest_bpfmaps.kernel.program_info import ProgramInfo, program_info
from pytest_bpfmaps.libbpf import lib
from pytest_bpfmaps.libbpf.calls import reason
from pytest_bpfmaps.programs.context import context_codec, return_codec
from pytest_bpfmaps.programs.prog_run import Runnable, RunResult, run_program
from pytest_bpfmaps.programs.verifier_stats import VerifierStats


@dataclass(frozen=True, slots=True)
class AgentProgram:
    """A program of another process. `name` is in full where its BTF has it."""

    name: str
    id: int
    type: ProgramType | int
    map_ids: tuple[int, ...] = field(repr=False)
    btf_id: int = field(repr=False)

    @property
    def run_count(self) -> int:
        """How often it ran since the agent was started, or since `Bpf.attach_to` was called.

        The kernel counts while its statistics are on (``BPF_ENABLE_STATS``, Linux 5.8). Raises `ClosedError`
        if it is no longer loaded.
        """
        found = program_info(self.id)
        if found is None:
            raise ClosedError(
                "cannot read the run count of",
                on=str(self),
                why="it is no longer loaded",
                fix="read it before the agent ends",
            )
        return found.run_count

    @property
    def verifier(self) -> VerifierStats:
        """What the kernel tells of its verification: the instructions (Linux 5.16), and the sizes.

        The other figures are None: they are in the log, which its loader got. `lines` and `loops` raise
        `LoadError`. Raises `ClosedError` if the program is no longer loaded.
        """
        found = program_info(self.id)
        if found is None:
            why, fix = "it is no longer loaded", "read it before the agent ends"
            raise ClosedError("cannot read the figures of", on=str(self), why=why, fix=fix)
        return VerifierStats(
            found.instructions or None,
            "",
            jited_size=found.jited_size or None,
            translated_size=found.translated_size or None,
            again=self._no_walk,
        )

    def _no_walk(self) -> NoReturn:
        raise LoadError(
            "cannot load again, to see what the verifier walks,",
            on=str(self),
            why="another process loaded it",
            fix="load its object by bpf.load, and read the lines there",
        )

    def run(self, data: Any = b"", ctx: Any = None, repeat: int = 1, cpu: int | None = None) -> RunResult:
        """Runs it on a packet or a context, without an event, as `Program.run` does.

        Raises `ClosedError` if it is no longer loaded, and what `Program.run` raises.
        """
        fd = int(lib.bpf_prog_get_fd_by_id(self.id))
        if fd < 0:
            raise ClosedError("cannot run", on=str(self), why=reason(-fd), fix="run it before the agent ends")
        try:
            codecs = load_codecs(self.btf_id) if self.btf_id else None
            context, returns = context_codec(self.type, self.name, codecs), return_codec(self.name, codecs)
            program = Runnable(fd, self.type, context, returns, str(self))
            return run_program(program, data, ctx, repeat, cpu, live=False)
        finally:
            os.close(fd)

    def __str__(self) -> str:
        return f"program {self.name!r} ({self.type}, id {self.id})"


def full_name(info: ProgramInfo) -> str:
    """Returns the name of a program's function in its BTF; the kernel's name, if it has no BTF."""
    if not info.btf_id or not info.function_type:
        return info.name
    try:
        name = load_codecs(info.btf_id).btf.type(info.function_type).name
    except BpfError:
        return info.name
    return name if name.startswith(info.name) else info.name
