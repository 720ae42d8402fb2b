"""A program that another process has loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_bpfmaps.errors import BpfError, ClosedError
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.btf import load_codecs
from pytest_bpfmaps.kernel.program_info import ProgramInfo, program_info


@dataclass(frozen=True, slots=True)
class AgentProgram:
    """A program of another process. `name` is in full where its BTF has it."""

    name: str
    id: int
    type: ProgramType | int
    map_ids: tuple[int, ...] = field(repr=False)

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
