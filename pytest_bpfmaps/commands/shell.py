"""`bpfmaps shell` and `bpfmaps exec`: a root shell, or one command, in a guest from its saved state."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_bpfmaps.commands.completion import kernels, offer

if TYPE_CHECKING:
    from pytest_bpfmaps.errors import BpfError
    from pytest_bpfmaps.vm.kernels.kernel import Kernel

LOST, NOT_STARTED, NOT_FOUND = 255, 126, 127
OWN_FOLDERS = ("/dev", "/proc", "/run", "/sys")
_HELP = "name, newest, a glob that fits one, or the path of an image or build tree"


def register(commands: Any) -> None:
    """Adds ``shell`` and ``exec`` to argparse's `commands`."""
    shell = commands.add_parser(
        "shell",
        help="an interactive root shell in a kernel",
        description="Starts $SHELL as root in a guest, with the host's files, in the current folder. What is "
        "written there is lost when the shell ends.",
    )
    kernel = shell.add_argument("kernel", nargs="?", default="newest", help=f"{_HELP} (default: newest)")
    offer(kernel, kernels)
    _add_options(shell)
    shell.set_defaults(run=_shell)

    run = commands.add_parser(
        "exec",
        help="one command in a kernel, with its input, output and exit status",
        description="Runs a command as root in a guest, with the host's files, in the current folder. "
        "Exit codes: the command's own, 128 and the signal's number if a signal ended it; "
        f"{NOT_FOUND} there is no such command, {NOT_STARTED} it can't be executed, "
        f"{LOST} the guest did not start or ended.",
        usage="bpfmaps exec [-h] [--cpus N] [--memory SIZE] [--network] [--timeout SECONDS] "
        "KERNEL -- COMMAND ...",
    )
    offer(run.add_argument("kernel", help=_HELP), kernels)
    run.add_argument("command", nargs="+", metavar="COMMAND", help="the command and its arguments, after --")
    _add_options(run)
    run.set_defaults(run=_exec)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cpus", type=int, default=2, help="as --bpf-vm-cpus (default: 2)")
    parser.add_argument("--memory", default="1G", help="as --bpf-vm-memory (default: 1G)")
    parser.add_argument("--network", action="store_true", help="as --bpf-vm-network")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="to boot (default: 60)"
    )


def _shell(arguments: argparse.Namespace) -> int:
    if not (os.isatty(0) and os.isatty(1)):
        from pytest_bpfmaps.errors import VmError

        which = "input" if not os.isatty(0) else "output"
        raise VmError(
            "cannot start a shell",
            why=f"standard {which} is no terminal",
            fix=f"for a script: bpfmaps exec {arguments.kernel} -- COMMAND",
        )
    shell = os.environ.get("SHELL") or ("/bin/bash" if Path("/bin/bash").exists() else "/bin/sh")
    return _run(arguments, [shell], terminal=True)


def _exec(arguments: argparse.Namespace) -> int:
    return _run(arguments, arguments.command, terminal=False)


def _run(arguments: argparse.Namespace, argv: list[str], *, terminal: bool) -> int:
    from pytest_bpfmaps.errors import BpfError
    from pytest_bpfmaps.vm.gateway.run_command import Wanted, run_command
    from pytest_bpfmaps.vm.kernels.progress import Progress

    progress = Progress()

    def preparing() -> None:
        progress.step(f"{kernel.name}: preparing, once: boot, imports, save")

    def ready(release: str, note: str | None) -> None:
        progress.clear()
        if note:
            print(f"bpfmaps: {note}", file=sys.stderr)
        if terminal:
            text = (
                f"bpfmaps: Linux {release}. The files are the host's; what you write is lost when you leave."
            )
            print(text, file=sys.stderr)

    try:
        kernel = _one_kernel(arguments.kernel)
        ended = run_command(
            kernel,
            Wanted(argv, terminal, re.sub(r"[^\w.+-]", "-", kernel.name)[:64] if terminal else None),
            cpus=arguments.cpus,
            memory=arguments.memory,
            network=arguments.network,
            timeout=arguments.timeout,
            preparing=preparing,
            ready=ready,
        )
    except BpfError as error:
        progress.clear()
        print(f"bpfmaps: {error.full_text()}", file=sys.stderr)
        return LOST
    if ended.errno is None:
        return ended.status
    print(f"bpfmaps: {_not_executed(argv[0], kernel, ended.errno)}", file=sys.stderr)
    return NOT_FOUND if ended.errno == errno.ENOENT else NOT_STARTED


def _one_kernel(pattern: str) -> Kernel:
    from pytest_bpfmaps.errors import VmError
    from pytest_bpfmaps.vm.kernels.catalogue import Catalogue

    if pattern == "host":
        fix = "run the command without `bpfmaps exec host --`; `bpfmaps kernels list` shows the other kernels"
        raise VmError(
            "cannot start a guest", on="with the kernel 'host'", why="this machine runs it already", fix=fix
        )
    found = Catalogue().select(pattern)
    if len(found) > 1:
        names = ", ".join(kernel.name for kernel in found)
        why, fix = f"{pattern!r} fits {names}", "name one of them; a loop in a shell runs a command in each"
        raise VmError("cannot choose a kernel", why=why, fix=fix)
    return found[0]


def _not_executed(name: str, kernel: Kernel, number: int) -> BpfError:
    """Returns the error of execve(2) in a guest, explained by the host's files, which the guest sees."""
    from pytest_bpfmaps.errors import Explanation, VmError
    from pytest_bpfmaps.loaders.exec_errors import explain_exec, explain_missing, find_command

    folders = [Path.cwd()]
    path = find_command(name, os.environ, folders)
    if path is None:
        why = explain_missing(name, os.environ, folders)
    elif os.path.realpath(path).startswith(tuple(f"{folder}/" for folder in OWN_FOLDERS)):
        own = ", ".join(OWN_FOLDERS)
        why = Explanation(
            f"{path} is on the host only: a guest has its own {own}", "copy it to another folder"
        )
    else:
        why = explain_exec(path, number)
    return VmError("cannot run", on=f"{name!r} in kernel {kernel.name}", why=why.why, fix=why.fix)
