"""`bpfmaps doctor`: prints the table of what this machine can do."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from pytest_bpfmaps.errors import shown_lines

_SIGNS = {"ok": "ok", "limited": "--", "missing": "NO"}


def register(commands: Any) -> None:
    """Adds ``doctor`` to argparse's `commands`."""
    doctor = commands.add_parser("doctor", help="what this machine can do for BPF tests, and what it lacks")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--vm", action="store_true", help="also boot each kernel, and say which ways to start it work"
    )
    doctor.add_argument(
        "--timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="with --vm: the limit of each boot, as --bpf-vm-timeout (default: 60; three times as long where "
        "guests are emulated)",
    )
    doctor.add_argument("--clang", help="the clang to look at (default: $CLANG, else the newest on the PATH)")
    doctor.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from pytest_bpfmaps.doctor import all_checks, can_test

    checks = list(all_checks(arguments.clang, boot=arguments.timeout if arguments.vm else None))
    able = can_test(checks)
    if arguments.json:
        json.dump({"able": able, "checks": [c.to_json() for c in checks]}, sys.stdout, indent=2)
        print()
        return 0 if able else 1
    width = max(len(c.name) for c in checks)
    area = ""
    for check in checks:
        head = check.area if check.area != area else ""
        found = shown_lines(check.found)  # programs say what they are
        print(f"{head:8}  {_SIGNS[check.state]}  {check.name:{width}}  {found}")
        if check.remedy:
            print(f"{'':12}  {'':{width}}  -> {check.remedy}")
        area = check.area
    print("\nBPF tests can run on this machine." if able else "\nBPF tests can't run on this machine yet.")
    return 0 if able else 1
