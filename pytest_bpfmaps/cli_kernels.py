"""`bpfmaps kernels`: the catalogue of kernels on the command line."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pytest_bpfmaps.vm.catalogue import Catalogue, Kernel
from pytest_bpfmaps.vm.progress import Progress


def register(commands: Any) -> None:
    """Add ``kernels`` and its verbs to argparse's `commands`."""
    kernels = commands.add_parser("kernels", help="the kernels that tests can run on")
    verbs = kernels.add_subparsers(title="verbs", metavar="VERB", required=True)

    fetch = verbs.add_parser("fetch", help="get a distribution's current kernel, or a container image's")
    fetch.add_argument(
        "spec",
        nargs="+",
        metavar="SOURCE",
        help="debian:bookworm, ubuntu:noble, …; oci:PATH[:TAG], oci://REGISTRY/NAME[:TAG]; v6.6",
    )
    fetch.add_argument("--name", help="store it under this name (default: its version, 6.1)")
    fetch.set_defaults(run=_fetch, usage_error=fetch.error)

    add = verbs.add_parser("add", help="store a kernel that is on this machine")
    add.add_argument(
        "path", type=Path, help="an image, a .deb or .rpm, an unpacked package, a build tree, an OCI layout"
    )
    add.add_argument("more", type=Path, nargs="*", metavar="PACKAGE", help="further packages of that kernel")
    add.add_argument("--name", help="store it under this name (default: its version, 6.1)")
    add.set_defaults(run=_add)

    show = verbs.add_parser("list", help="show the kernels that are stored")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(run=_list)

    remove = verbs.add_parser("remove", help="delete stored kernels")
    remove.add_argument("name", nargs="+")
    remove.set_defaults(run=_remove)


def _fetch(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.vm.fetching import fetch

    if arguments.name and len(arguments.spec) > 1:
        arguments.usage_error("--name goes with one kernel")
    progress = Progress()
    for spec in arguments.spec:
        began = time.monotonic()
        try:
            kernel, new = fetch(spec, Catalogue(), progress, arguments.name)
        finally:
            progress.clear()
        if new:
            print(f"{_line(kernel)}  in {time.monotonic() - began:.0f} s", flush=True)
        else:
            print(f"{_line(kernel)}  is up to date", flush=True)


def _add(arguments: argparse.Namespace) -> None:
    progress = Progress()
    try:
        kernel = Catalogue().add(arguments.path, arguments.name, progress, arguments.more)
    finally:
        progress.clear()
    print(_line(kernel))


def _list(arguments: argparse.Namespace) -> None:
    kernels = list(Catalogue())
    if arguments.json:
        print(json.dumps([kernel.to_json() for kernel in kernels], indent=1))
        return
    for kernel in kernels:
        print(_line(kernel))
    if not kernels:
        print("no kernels yet; get one with: bpfmaps kernels fetch debian:bookworm")


def _remove(arguments: argparse.Namespace) -> None:
    for name in arguments.name:
        Catalogue().remove(name)


def _line(kernel: Kernel) -> str:
    without = [what for what, has in (("modules", kernel.modules), ("BTF", kernel.btf)) if not has]
    lacks = f"  (no {', no '.join(without)})" if without else ""
    return f"{kernel.name:8} {kernel.release:26} {kernel.size >> 20:5} MB  {kernel.source}{lacks}"
