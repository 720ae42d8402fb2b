"""Which kernels a run is for, from the option ``--bpf-kernel``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.matrix import HOST

if TYPE_CHECKING:
    from pytest_bpfmaps.vm.kernels.kernel import Kernel

IDLE = "idle"  # a worker that only keeps the place of a worker that must not be replaced
AUTO = "auto"


@dataclass(frozen=True)
class Guest:
    """A kernel that runs in a virtual machine; `pattern` finds it in the catalogue again."""

    kernel: Kernel
    pattern: str


@dataclass(frozen=True)
class Selection:
    """The kernels of a run in their order (`HOST` may be among them), and those of them that are guests.

    `explicit`: the user chose them, so the ids of items have the kernel's name.
    """

    names: tuple[str, ...] = (HOST,)
    guests: tuple[Guest, ...] = ()
    explicit: bool = False

    def header(self, how: str = "") -> str:
        """Returns ``kernels host (6.18.1), 6.1 (6.1.0-13-amd64, KVM)``; `how` is how guests run, if known."""
        note = f", {how}" if how else ""
        releases = {guest.kernel.name: guest.kernel.release + note for guest in self.guests}
        releases[HOST] = os.uname().release
        return "kernels " + ", ".join(f"{name} ({releases[name]})" for name in self.names)


def select(patterns: Iterable[str]) -> Selection:
    """Returns the kernels that `patterns` mean: ``host``, or what `Catalogue.select` takes.

    A pattern may be several with commas between them. Raises VmError when one means no kernel.
    """
    from pytest_bpfmaps.errors import VmError
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    catalogue = Catalogue()
    wanted = [part.strip() for pattern in patterns for part in pattern.split(",") if part.strip()]
    guests: dict[str, Guest] = {}
    names: dict[str, None] = {}
    for pattern in wanted:
        if pattern == AUTO:
            raise VmError(
                "cannot choose",
                on=f"kernel {AUTO!r} among others",
                why="it stands for the host, or for one guest where BPF programs can't be loaded here",
                fix=f"name the kernels: --bpf-kernel={HOST},{','.join(catalogue.names()) or '6.1'}",
            )
        if pattern == HOST:
            names[HOST] = None
            continue
        for kernel in catalogue.select(pattern):
            is_path = "/" in pattern or kernel.name not in catalogue.names()
            guests[kernel.name] = Guest(kernel, str(Path(pattern).resolve()) if is_path else kernel.name)
            names[kernel.name] = None
    return Selection(tuple(names) or (HOST,), tuple(guests.values()), explicit=bool(wanted))


def newest() -> Selection:
    """Returns the newest kernel of the catalogue, as a guest. Raises VmError when the catalogue is empty."""
    from pytest_bpfmaps.errors import VmError
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    catalogue = Catalogue()
    if not catalogue.names():
        raise VmError(
            "no kernel",
            on="for a guest",
            why="the catalogue is empty",
            fix="bpfmaps kernels fetch debian:bookworm",
        )
    (kernel,) = catalogue.select("newest")
    return Selection((kernel.name,), (Guest(kernel, kernel.name),), explicit=False)


def lane_of(gateway: Any) -> str:
    """Returns the lane of a worker, by its execnet gateway: a lane's name, `HOST`, or `IDLE`."""
    return gateway.spec.lane or HOST
