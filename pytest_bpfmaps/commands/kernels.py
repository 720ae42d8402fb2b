"""`bpfmaps kernels`: manages the catalogue of kernels on the command line."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pytest_bpfmaps.commands.completion import kernels as stored
from pytest_bpfmaps.commands.completion import offer
from pytest_bpfmaps.errors import shown
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue
from pytest_bpfmaps.vm.kernels.kernel import Kernel
from pytest_bpfmaps.vm.kernels.progress import Progress


def register(commands: Any) -> None:
    """Adds ``kernels`` and its verbs to argparse's `commands`."""
    kernels = commands.add_parser("kernels", help="the kernels that tests can run on")
    verbs = kernels.add_subparsers(title="verbs", metavar="VERB", required=True)

    fetch = verbs.add_parser(
        "fetch", help="get the current kernel of a distribution, or one from a container image"
    )
    fetch.add_argument(
        "spec",
        nargs="*",
        metavar="SOURCE",
        help="debian:bookworm, ubuntu:noble, …; a release, v6.6; oci:PATH[:TAG]; oci://REGISTRY/NAME[:TAG]",
    )
    fetch.add_argument("--name", help="store it under this name (default: its version, such as 6.1)")
    fetch.add_argument(
        "--locked",
        action="store_true",
        help="get exactly the kernels of the lock file, or those of them that are named",
    )
    _add_lock_file(fetch)
    fetch.set_defaults(run=_fetch, usage_error=fetch.error)

    lock = verbs.add_parser("lock", help="pin stored kernels to their exact packages, for fetch --locked")
    name = lock.add_argument(
        "name",
        nargs="*",
        help="names or globs (default: the kernels of the lock file, else all that were fetched)",
    )
    offer(name, stored)
    _add_lock_file(lock)
    lock.set_defaults(run=_lock)

    add = verbs.add_parser("add", help="store a kernel that is on this machine")
    add.add_argument(
        "path",
        type=Path,
        help="an image, a .deb or .rpm, an unpacked package, a build tree, or an OCI layout",
    )
    add.add_argument("more", type=Path, nargs="*", metavar="PACKAGE", help="more packages of that kernel")
    add.add_argument("--name", help="store it under this name (default: its version, such as 6.1)")
    add.set_defaults(run=_add)

    show = verbs.add_parser("list", help="show the kernels that are stored")
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_list)

    remove = verbs.add_parser("remove", help="delete stored kernels")
    offer(remove.add_argument("name", nargs="+"), stored)
    remove.set_defaults(run=_remove)


def _add_lock_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--lock-file",
        type=Path,
        default=Path("kernels.lock"),
        metavar="FILE",
        help="the lock file (default: kernels.lock)",
    )


def _fetch(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.vm.kernels.fetch import fetch

    if arguments.name and (arguments.locked or len(arguments.spec) > 1):
        arguments.usage_error("--name needs exactly one kernel")
    if arguments.locked:
        _fetch_locked(arguments)
        return
    if not arguments.spec:
        arguments.usage_error("name a source, or use --locked")
    progress = Progress()
    for spec in arguments.spec:
        _report(partial(fetch, spec, Catalogue(), progress, arguments.name), progress, "up to date")


def _fetch_locked(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.vm.kernels import lockfile

    progress = Progress()
    for locked in lockfile.choose(lockfile.read(arguments.lock_file), arguments.spec):
        _report(partial(lockfile.restore, locked, Catalogue(), progress), progress, "as it is locked")


def _report(get: Callable[[], tuple[Kernel, bool]], progress: Progress, otherwise: str) -> None:
    began = time.monotonic()
    try:
        kernel, new = get()
    finally:
        progress.clear()
    note = f"in {time.monotonic() - began:.0f} s" if new else f"is {otherwise}"
    print(f"{_line(kernel)}  {note}", flush=True)


def _lock(arguments: argparse.Namespace) -> None:
    from pytest_bpfmaps.vm.kernels import lockfile

    pinned, others = lockfile.write(arguments.lock_file, Catalogue(), arguments.name)
    for kernel in pinned:
        print(_line(kernel))
    for kernel in others:
        print(f"bpfmaps: {kernel.name} is left out: it is from {kernel.source}", file=sys.stderr)


def _add(arguments: argparse.Namespace) -> None:
    progress = Progress()
    try:
        kernel = Catalogue().add(arguments.path, arguments.name, progress, arguments.more)
    finally:
        progress.clear()
    print(_line(kernel))


def _list(arguments: argparse.Namespace) -> None:
    kernels, damaged = list(Catalogue()), Catalogue().damaged()
    for error in damaged.values():
        print(f"bpfmaps: {error.full_text()}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([kernel.to_json() for kernel in kernels], indent=1))
        return
    for kernel in kernels:
        print(_line(kernel))
    if not kernels and not damaged:
        print("no kernels yet; get one with: bpfmaps kernels fetch debian:bookworm")


def _remove(arguments: argparse.Namespace) -> None:
    for name in arguments.name:
        Catalogue().remove(name)


def _line(kernel: Kernel) -> str:
    without = [what for what, has in (("modules", kernel.modules), ("BTF", kernel.btf)) if not has]
    lacks = f"  (no {', no '.join(without)})" if without else ""
    return f"{kernel.name:8} {kernel.release:26} {kernel.size / 1e6:5.0f} MB  {shown(kernel.source)}{lacks}"
