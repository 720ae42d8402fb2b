"""`bpfmaps vm`: manages the saved states that guests start from, on the command line."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from pytest_bpfmaps.commands.completion import kernels, offer
from pytest_bpfmaps.vm.boot import saved_states
from pytest_bpfmaps.vm.kernels.progress import Progress


def register(commands: Any) -> None:
    """Adds ``vm`` and its verbs to argparse's `commands`."""
    vm = commands.add_parser("vm", help="the saved states that guests start from")
    verbs = vm.add_subparsers(title="verbs", metavar="VERB", required=True)

    prepare = verbs.add_parser(
        "prepare", help="make states now; else the first run of each kernel makes them"
    )
    kernel = prepare.add_argument(
        "kernel", nargs="*", default=["all"], help="names or globs of kernels (default: all)"
    )
    offer(kernel, kernels)
    prepare.add_argument("--cpus", type=int, default=2, help="as --bpf-vm-cpus (default: 2)")
    prepare.add_argument("--memory", default="1G", help="as --bpf-vm-memory (default: 1G)")
    prepare.add_argument("--network", action="store_true", help="as --bpf-vm-network")
    prepare.set_defaults(run=_prepare)

    show = verbs.add_parser("list", help="show the states that are stored")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_list)

    collect = verbs.add_parser("gc", help="delete states that are out of date")
    collect.add_argument("--all", action="store_true", help="delete current states, too")
    collect.set_defaults(run=_collect)


def _prepare(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.vm.boot import warm
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
    from pytest_bpfmaps.vm.machine.kvm import judge
    from pytest_bpfmaps.vm.machine.qemu import MachineConfig

    progress, catalogue = Progress(), Catalogue()
    kernels = {kernel.name: kernel for name in arguments.kernel for kernel in catalogue.select(name)}
    for kernel in kernels.values():
        warm.check(kernel.arch)
        began = time.monotonic()
        progress.step(f"{kernel.name}: booting, to save its state")
        try:
            shape = MachineConfig(arguments.cpus, arguments.memory, judge(kernel).kvm, arguments.network)
            with kernel.in_use():
                state = warm.prepare(kernel, shape)
        finally:
            progress.clear()
        print(f"{_line(state)}  in {time.monotonic() - began:.1f} s", flush=True)


def _list(arguments: argparse.Namespace) -> None:
    found = saved_states.states()
    if arguments.json:
        print(json.dumps([_facts(state) for state in found], indent=1))
        return
    for state in found:
        print(_line(state))
    if not found:
        print("no saved states; the first run for a kernel makes one, and so does: bpfmaps vm prepare")


def _collect(arguments: argparse.Namespace) -> None:
    everything = saved_states.states() if arguments.all else []
    for state in everything:
        line = _line(state)
        print(
            f"deleted {line}"
            if saved_states.remove_unused(state)
            else f"kept    {line}  (a guest runs from it)"
        )
    for state in saved_states.remove_outdated():
        print(f"deleted {state.path.name}")


def _facts(state: saved_states.SavedState) -> dict[str, Any]:
    """Returns the facts about a state; for a damaged one only its name and path."""
    try:
        return _whole_facts(state)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {"name": state.path.name, "current": False, "damaged": True, "path": str(state.path)}


def _whole_facts(state: saved_states.SavedState) -> dict[str, Any]:
    facts = state.facts()
    return {
        "name": state.path.name,
        "kernel": facts["kernel"],
        "release": facts["release"],
        "size": state.size,
        "age": state.age,
        "seconds": facts.get("seconds", {}),
        "unused": state.unused,
        "current": state.is_current(),
        "path": str(state.path),
    }


def _line(state: saved_states.SavedState) -> str:
    facts = _facts(state)
    if "damaged" in facts:
        return f"{facts['name']}  (damaged)"
    what = "" if facts["current"] else "  (out of date)"
    age = f"made {_span(facts['age'])} ago, used {_span(facts['unused'])} ago"
    return f"{facts['kernel']:8} {facts['release']:26} {facts['size'] / 1e6:5.0f} MB  {age}{what}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
