"""A process that loads BPF programs itself: the agent that a team ships, or a tool such as bpftrace."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from pytest_bpfmaps.errors import closest
from pytest_bpfmaps.kernel.bpf_types import ProgramType
from pytest_bpfmaps.kernel.program_info import ForeignProgram
from pytest_bpfmaps.loaders.agent_objects import AgentObjects
from pytest_bpfmaps.loaders.arguments import wrong
from pytest_bpfmaps.loaders.collections import ByName, is_called
from pytest_bpfmaps.loaders.endings import ending
from pytest_bpfmaps.loaders.kernel_objects import Before
from pytest_bpfmaps.loaders.leftovers import Leftover, expect_nothing
from pytest_bpfmaps.loaders.links import UNTOLD, AgentLink, AgentLinks
from pytest_bpfmaps.loaders.process_tree import ProcessStat, ProcessTree
from pytest_bpfmaps.loaders.programs import AgentProgram
from pytest_bpfmaps.loaders.running_process import RunningProcess
from pytest_bpfmaps.loaders.spawn import Privileges
from pytest_bpfmaps.loaders.token_namespaces import TOKEN_FOLDER
from pytest_bpfmaps.objects.any_map import Map

_NONE_LOADED = (
    "  it has loaded no program; "
    "some agents leave out a program, and go on, if they do not find its tracepoint"
)


class LoaderProcess(RunningProcess):
    """A process that loads BPF programs itself, with its children; `Bpf.start` and `Bpf.attach_to` make it.

    `before` is what was in the kernel before. `netns` is a descriptor of the network namespace that it began
    in; it belongs to this object. The rest is as for `RunningProcess`.
    """

    def __init__(
        self,
        command: list[str],
        tree: ProcessTree,
        child: subprocess.Popen[bytes] | None,
        before: Before,
        netns: int,
        *,
        path: str = "",
        cwd: str = "",
        folder: Callable[[], Path] = Path.cwd,
        rights: Privileges | None = None,
    ) -> None:
        super().__init__(command, tree, child, path=path, cwd=cwd, folder=folder, rights=rights)
        bpffs = TOKEN_FOLDER if rights and rights.token else None
        self._objects = AgentObjects(
            str(self), lambda: self.pids, before, netns, ended=self._how_it_ended, bpffs=bpffs
        )
        self._objects.count_runs()

    def _how_it_ended(self) -> str | None:
        """Returns how and when all its processes ended, None while one of them runs."""
        if self.members() or self._ran_for is None:
            return None
        since = "bpf.attach_to" if self._child is None else "its start"
        return f"it {ending(self.returncode)}, at most {self._ran_for:.1f} s after {since}"

    @property
    def maps(self) -> ByName[Map]:
        """Its maps now: ``agent.maps.x``, ``agent.maps["x"]``, ``agent.maps[17]`` (an id), iterable.

        These are the maps that it and its children have open, have pinned, or use in their programs. Maps
        that the test has looked at stay readable after the agent's end. A map's methods are those of `Map`.
        """
        return self._objects.maps()

    @property
    def programs(self) -> ByName[AgentProgram]:
        """Its programs now, found by name and id as `maps` are."""
        return self._objects.programs()

    @property
    def links(self) -> AgentLinks:
        """Where its programs are attached now; compare it with a list of tuples, in any order.

        ``agent.links == [("trace_exec", "tracepoint/sched/sched_process_exec"), ("drop", "veth0 ingress")]``
        """
        return self._objects.links()

    @property
    def pins(self) -> dict[str, str]:
        """What it has pinned, by path."""
        return self._objects.pins()

    def wait_until_attached(self, name: str, timeout: float = 10.0) -> AgentLink:
        """Waits until a program is attached, and returns its first link.

        `name` is a program's name, or a target as `AgentLink.target` has it:
        ``tracepoint/sched/sched_process_exec``. Use a target where a tool chooses the programs' names, as
        bpftrace does. `timeout` is in seconds, and longer where the CPU is emulated. Raises `LoaderError` if
        the process ends before that, and `CaptureTimeoutError` (an `AssertionError`) if the program is not
        attached in time.
        """
        if not isinstance(name, str) or not name:
            fix = "give a program's name, or a target such as 'tracepoint/sched/sched_process_exec'"
            raise wrong(f"cannot wait until {name!r} is attached", "it is no name", fix)
        found: AgentLink = self.wait_until(
            lambda: next(
                (each for each in self.links if each.target == name or is_called(name, each.program)), None
            ),
            f"waited until {_wanted(name)}",
            timeout,
            lambda: self._describe_programs(name),
        )
        return found

    def _describe_programs(self, name: str) -> str:
        programs, links = [each.name for each in self.programs], self.links
        if not programs and not links:
            return "\n".join([_NONE_LOADED, self.last_lines() or ""]).rstrip()
        lines = [f"  attached: {each}" for each in links] or ["  no program is known to be attached"]
        attached = {each.program_id for each in links}
        sampling = [p for p in self.programs if p.type is ProgramType.PERF_EVENT and p.id not in attached]
        lines += [
            f"  the kernel does not tell whether {each.name!r} is attached: it is a program of the type "
            f"perf_event without a link. Wait until it runs: agent.programs[{each.name!r}].run_count"
            for each in sampling
        ]
        if not _is_target(name) and not any(is_called(name, each) for each in programs):
            lines.append(f"  no program {name!r} is loaded; {closest(name, programs)}")
        if _is_target(name) and any(UNTOLD in each.target for each in links):
            lines.append(
                "  no target is known of fentry before Linux 5.13, nor, before 6.6, of a perf event that the "
                "process has closed: wait for the program's name"
            )
        return "\n".join([*lines, self.last_lines() or ""]).rstrip()

    def members(self) -> list[ProcessStat]:
        """Returns the processes that run now, the first process first."""
        running = super().members()
        if not running:
            self._objects.note_end()
        return running

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process; if it went into the background, to its descendants."""
        self._objects.note_what_is_held()
        super().send_signal(number)

    def kill(self) -> None:
        """Ends it and its descendants at once by SIGKILL, and waits until they have ended."""
        self._objects.note_what_is_held()
        super().kill()

    def programs_so_far(self) -> list[ForeignProgram]:
        """Returns its programs, and those that were found before and are no longer loaded."""
        return self._objects.programs_so_far()

    def expect_nothing_left(self, timeout: float) -> None:
        """Does what `Bpf.nothing_left` says."""

        def find() -> list[Leftover]:
            running = [Leftover(f"{each} still runs", f"kill {each.pid}") for each in self.members()]
            return running + self._objects.left()

        expect_nothing(find, str(self), timeout)

    def close(self) -> None:
        """Ends it as `RunningProcess.close` does, and closes its maps. Safe to call again."""
        try:
            super().close()
        finally:
            self._objects.close()


def _is_target(name: str) -> bool:
    """Returns whether that can be no program's name."""
    return not name.removeprefix("@").replace(".", "_").isidentifier()


def _wanted(name: str) -> str:
    return f"a program is attached at {name!r}" if _is_target(name) else f"{name!r} is attached"
