# PYTHON_ARGCOMPLETE_OK: argcomplete looks for this line
"""The `bpfmaps` command: parses arguments, calls a subcommand, and turns our errors into exit codes.

Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from pytest_bpfmaps.commands.completion import complete
from pytest_bpfmaps.errors import BpfError, shown_lines

# Each module has a `register(subcommands)`. It adds a parser whose default `run` takes the namespace.
_NAMES = (
    "docs",
    "doctor",
    "kernels",
    "new",
    "shell",
    "stubs",
    "verify",
    "vm",
)
_COMMANDS = tuple(f"pytest_bpfmaps.commands.{name}" for name in _NAMES)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (default: the process's), and returns its exit code."""
    _open_closed_streams()
    commands = parser()
    complete(commands)
    arguments = commands.parse_args(argv)
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return int(code or 0)
    except BpfError as error:
        print(f"bpfmaps: {error.full_text()}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Python flushes stdout at its exit. To /dev/null that succeeds; to the pipe it would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"bpfmaps: {shown_lines(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bpfmaps: interrupted", file=sys.stderr)
        return 130


def _open_closed_streams() -> None:
    """Opens /dev/null for each standard stream that is closed.

    Otherwise the next file that is opened would get the stream's number, and our output.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


class _Version(argparse.Action):
    """Does what argparse's own action does, but reads the package's metadata only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"bpfmaps {version('pytest-bpfmaps')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command, with all subcommands."""
    made = argparse.ArgumentParser(prog="bpfmaps", description="Kernels and guests for pytest-bpfmaps.")
    made.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        import_module(module).register(commands)
    return made


if __name__ == "__main__":
    sys.exit(main())
