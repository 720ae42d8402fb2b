"""The arguments of a gateway."""

from __future__ import annotations

import argparse

from pytest_bpfmaps.vm.boot.backends import AUTO, CHOICES


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses the gateway's arguments, and ignores those that execnet adds for an interpreter."""
    parser = argparse.ArgumentParser(prog="pytest_bpfmaps.vm.gateway")
    parser.add_argument("kernel")
    parser.add_argument("--way", choices=CHOICES, default=AUTO)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--kvm", action="store_true")
    parser.add_argument("--judge", action="store_true", help="find out whether KVM works on this machine")
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--executed", action="store_true", help="record which code of BPF programs runs")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for the boot, and for each step")
    parser.add_argument("--others", default=None, help="what else runs, so that nobody can debug here")
    parser.add_argument("--output", action="store_true", help="show what tests write")
    parser.add_argument("--clang", default=None)
    parser.add_argument("--vmlinux", default="per-kernel", help="what vmlinux.h comes from")
    parser.add_argument("--journal", default=None)
    parser.add_argument("--artifacts", default=None, help="folder for the files that the guest sends")
    parser.add_argument("--input", default=None, help="pytest's standard input, where tests may read it")
    parser.add_argument("--gdb", action="store_true", help="serve gdb at a failing test")
    return parser.parse_known_args(argv)[0]
