"""Runs clang once for one request, without a cache, and explains a failure."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_bpfmaps.compiler.clang import INSTALL, Clang, Outcome, run
from pytest_bpfmaps.compiler.command_line import ENVIRONMENT, flags_for, target_flags
from pytest_bpfmaps.compiler.counting import Assembly, accepted, condition_flags, counting_flags
from pytest_bpfmaps.compiler.dependencies import (
    SearchPath,
    check_name,
    parse_dependencies,
    parse_search_path,
    without_search_path,
)
from pytest_bpfmaps.compiler.diagnostics import (
    errors_first,
    missing_header,
    reason,
    remedy,
    without_repetitions,
)
from pytest_bpfmaps.compiler.implicit_headers import Assumption, wanted
from pytest_bpfmaps.compiler.precompiled_header import PrecompiledHeader, begins_with_vmlinux
from pytest_bpfmaps.compiler.request import CompileRequest
from pytest_bpfmaps.compiler.undeclared_names import explain, shortened
from pytest_bpfmaps.errors import CompileError, shown, shown_lines, strerror

_FRAME = re.compile(r"^ *#\d+ 0x.*\n?", re.MULTILINE)
_CRASH = "PLEASE submit a bug report"


@dataclass(frozen=True)
class Built:
    """What clang made in the given folder."""

    object: Path
    warnings: str
    dependencies: list[str]
    search: SearchPath
    vmlinux: Path | None  # the folder of the vmlinux.h that was made for the source


@dataclass
class _Attempt:
    """The options of one run of clang, and how it ended. `given` has what was added that clang asked for."""

    flags: list[str]
    conditions: list[str]
    outcome: Outcome
    search: SearchPath
    vmlinux: Path | None = None
    given: dict[Assumption, str] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        return [*self.flags, *self.conditions]


@dataclass(frozen=True)
class Builder:
    """Compiles one request. `source` is the file that clang reads, `timeout` is in seconds per run.

    `vmlinux_folder` makes ``vmlinux.h`` and returns its folder. It is called only if clang does not find one.
    """

    clang: Clang
    request: CompileRequest
    source: Path
    timeout: float
    vmlinux_folder: Callable[[], Path]

    def build(self, folder: Path) -> Built:
        """Compiles into `folder`. Raises `CompileError`, and `OSError` if the folder can't be written."""
        for path in (str(self.source), str(folder), *self.request.include):
            check_name(path)
        flags = flags_for(self.request)
        files = [
            "-MD",
            "-MF",
            f"{folder}/out.d",
            "-MT",
            "out.o",
            *(("-S", "-emit-llvm") if self.request.counting else ("-c",)),
            str(self.source),
            "-o",
            f"{folder}/out.ll" if self.request.counting else f"{folder}/out.o",
        ]
        conditions = condition_flags() if self.request.mcdc else []
        attempt = _Attempt(flags, conditions, Outcome(1, ""), SearchPath((), ""))
        self._try(attempt, files)
        outcome = attempt.outcome
        dependencies: list[str] = []
        if outcome.code == 0 and (folder / "out.d").exists():
            dependencies = parse_dependencies(os.fsdecode((folder / "out.d").read_bytes()))
            if self.request.counting:
                outcome = self._assembly(folder, attempt, dependencies).assemble(outcome.output)
        if outcome.code:
            raise self._failure(outcome, attempt.search, attempt.vmlinux is not None)
        if not (folder / "out.o").exists() or not dependencies:
            raise self._error(
                "clang succeeded, but made no object",
                details=self._presented(outcome.output),
                fix="leave out the option that makes it only print something, or write the object elsewhere",
            )
        warnings = self._presented("".join(attempt.given.values()) + attempt.outcome.output)
        return Built(folder / "out.o", warnings, dependencies, attempt.search, attempt.vmlinux)

    def _try(self, attempt: _Attempt, files: Sequence[str]) -> None:
        """Runs clang until it succeeds, or nothing can be added that its errors ask for."""
        if self._compile_quickly(attempt, files):
            return
        attempt.outcome, attempt.search = self._compile([*attempt.options, *files])
        while attempt.outcome.code != 0:
            # These are added only now: most sources need neither, and clang finds a user's own header first.
            output = attempt.outcome.output
            if not attempt.vmlinux and missing_header(output) == "vmlinux.h":
                attempt.vmlinux = self.vmlinux_folder()
                attempt.flags += ["-idirafter", str(attempt.vmlinux)]
            elif assumption := wanted(output, attempt.given, attempt.flags, str(self.source)):
                attempt.given.update([assumption])
                attempt.flags += assumption[0].flags
            elif (fewer := accepted(attempt.conditions, output)) is not None:
                attempt.conditions = fewer
            else:
                break
            attempt.outcome, attempt.search = self._compile([*attempt.options, *files])

    def _compile_quickly(self, attempt: _Attempt, files: Sequence[str]) -> bool:
        """Compiles with the precompiled ``vmlinux.h``. Returns whether that could be done.

        It is not done if clang might find another ``vmlinux.h``, or if one of the user's own options might
        change what is in it.
        """
        request = self.request
        if request.cflags or request.defines or os.environ.keys() & {*ENVIRONMENT}:
            return False
        if _has_vmlinux([str(self.source.parent), *request.include]):
            return False
        if not begins_with_vmlinux(self.source.read_bytes()):
            return False
        try:
            folder = self.vmlinux_folder()
        except CompileError:  # this kernel has no BTF; clang may know another folder with the header
            return False
        same = [*target_flags(), *(counting_flags() if request.counting else ()), *attempt.conditions]
        made = PrecompiledHeader(folder, self.clang, same, self._run).path()
        if made is None:
            return False
        flags = [*attempt.flags, "-idirafter", str(folder)]
        outcome, search = self._compile([*flags, *attempt.conditions, "-include-pch", str(made), *files])
        if outcome.code or _has_vmlinux(one for one in search.folders if one != str(folder)):
            return False
        attempt.flags, attempt.outcome, attempt.search, attempt.vmlinux = flags, outcome, search, folder
        return True

    def _assembly(self, folder: Path, attempt: _Attempt, dependencies: Sequence[str]) -> Assembly:
        asked = attempt.conditions if self.request.mcdc else None
        clang = self.clang
        return Assembly(folder, attempt.flags, self._run, clang.path, clang.version, dependencies, asked)

    def _compile(self, arguments: Sequence[str]) -> tuple[Outcome, SearchPath]:
        """Runs clang, and returns the search path, too: a run of its own takes two thirds as long."""
        outcome = self._run(["-v", *arguments])
        search = parse_search_path(outcome.output)
        if search is None:
            return self._run(arguments), SearchPath((), "")
        return Outcome(outcome.code, without_search_path(outcome.output)), search

    def _run(self, arguments: Sequence[str]) -> Outcome:
        try:
            return run([self.clang.path, *arguments], timeout=self.timeout)
        except TimeoutError as e:
            raise self._error(
                f"{self.clang.path} gave no answer within {self.timeout:g} s",
                fix="look for a header that blocks, such as a pipe, or try another clang (--bpf-clang)",
            ) from e
        except OSError as e:
            raise CompileError(
                "cannot run clang", on=self.clang.path, why=strerror(e.errno or 0), fix=INSTALL, errno=e.errno
            ) from e

    def _failure(self, outcome: Outcome, search: SearchPath, vmlinux: bool) -> CompileError:
        details = self._presented(outcome.output)
        if os.strerror(errno.ENOSPC) in details:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fix = remedy(details, search.folders)
        known = None if fix else explain(details, vmlinux=vmlinux)
        if known:
            why = f"{known[0]} (clang {self.clang.version})"
            return self._error(why, details=errors_first(shortened(details)), fix=known[1])
        if _signal_name(outcome.code) or _CRASH in details:
            return self._error(
                f"clang {self.clang.version} crashed{_signal_name(outcome.code)}",
                details=_FRAME.sub("", details),
                fix="this is a defect of clang, not of the source: try another clang (--bpf-clang)",
            )
        return self._error(
            f"{reason(details, self.request.file_name)} (clang {self.clang.version})",
            details=errors_first(without_repetitions(details)),
            fix=fix,
        )

    def _error(self, why: str, *, details: str | None = None, fix: str | None = None) -> CompileError:
        source = self.request.source
        on = shown(_from_here(source) if source else self.request.file_name)
        return CompileError("cannot compile", on=on, why=why, details=details, fix=fix)

    def _presented(self, output: str) -> str:
        """Returns diagnostics that name `code` as the user did, not the temporary file that holds it."""
        output = shown_lines(os.fsencode(output).decode(errors="replace"))
        return output.replace(f"{self.source.parent}/", "") if self.request.code is not None else output


def _has_vmlinux(folders: Iterable[str]) -> bool:
    return any(os.path.exists(os.path.join(folder, "vmlinux.h")) for folder in folders)


def _from_here(path: str) -> str:
    """Returns the path of a file below the current folder from there: a line of pytest's summary is short."""
    return path.removeprefix(os.path.join(os.getcwd(), ""))


def _signal_name(code: int) -> str:
    """Returns the signal in an exit status as text, ``" (SIGSEGV)"``; empty if there is none.

    `subprocess` gives a negative number for a signal; a shell and clang's driver give 128 and more.
    """
    number = -code if code < 0 else code - 128
    return f" ({signal.Signals(number).name})" if number in set(signal.Signals) else ""
