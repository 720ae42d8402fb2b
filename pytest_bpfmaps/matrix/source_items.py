"""Makes pytest items of BPF sources that have their own expectations: ``file.bpf.c::program[kernel]``.

This module is a plugin. It is registered where `bpf_collect` names sources.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import chosen, kernels_here

if TYPE_CHECKING:
    from pytest_bpfmaps.selftests.runner import Case

# The text of a file tells whether to compile it at all: it uses macros of bpf_misc.h or bpfmaps_expect.h.
_TAGS = re.compile(
    rb"\b__(success|failure|msg|not_msg|retval|xlated|jited|auxiliary|description|log_level)(_unpriv)?\b"
    rb"|comment:test_"
)

_MATCHES: pytest.StashKey[frozenset[Path]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Adds these files to those of `testpaths` where the command line names none."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    roots = [Path(os.path.abspath(config.rootpath / a.partition("::")[0])) for a in config.args]
    for path in sorted(_matches(config)):
        if not any(path.is_relative_to(root) for root in roots):
            config.args.append(str(path))


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> BpfSource | None:
    """Takes a file when `bpf_collect` names it."""
    if file_path not in _matches(parent.config):
        return None
    return BpfSource.from_parent(parent, path=file_path)


class BpfSource(pytest.File):
    """A source; its items are its programs, once per kernel."""

    def collect(self) -> Iterator[BpfProgram]:
        """Compiles the source, and gives its programs. A `CompileError` is an error of the collection."""
        kernels = kernels_here(self.config, self)
        cases = self._cases() if kernels else []
        for kernel in kernels:
            for case in cases:
                name = f"{case.name}[{kernel}]" if chosen(self.config) else case.name
                yield BpfProgram.from_parent(self, name=name, case=case, kernel=kernel)

    def _cases(self) -> list[Case]:
        from pytest_bpfmaps.compiler import CompileRequest
        from pytest_bpfmaps.matrix.compilers import compiler_of
        from pytest_bpfmaps.matrix.used_sources import recording
        from pytest_bpfmaps.selftests.runner import cases_of

        config = self.config
        request = CompileRequest(
            source=str(self.path),
            include=tuple(str(folder) for folder in config.getini("bpf_paths")),
            cflags=tuple(config.getini("bpf_collect_cflags")),
        )
        compiler = recording(compiler_of(config), self)
        return cases_of(compiler.compile(request), self.path.name)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """Returns our message, without a traceback."""
        return _message(excinfo) or super().repr_failure(excinfo)


class BpfProgram(pytest.Item):
    """A program with its expectations; `bpf_kernel` is the name of the kernel that it is for."""

    def __init__(self, *, case: Case, kernel: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.bpf_kernel = kernel
        if case.expected.description:
            self.user_properties.append(("description", case.expected.description))

    def runtest(self) -> None:
        """Loads the program, and compares what happens with the expectations."""
        from contextlib import nullcontext

        from pytest_bpfmaps.matrix.bpf_requires import skip_for_want
        from pytest_bpfmaps.selftests.runner import anybody_loads, cannot_run, lacking

        # The guest is used by this run only, so a test may change its setting while it runs.
        with nullcontext() if self.bpf_kernel == HOST else anybody_loads():
            reason = cannot_run(self.case)
            if reason:
                pytest.skip(reason)
            missing = lacking(self.case)
            if missing is not None:
                skip_for_want(self, missing.name, f"{os.uname().release} lacks {missing.name}: {missing.why}")
            unchecked = self._run()
        if unchecked:
            pytest.skip(f"all is as expected, but {', '.join(unchecked)} could not be checked")

    def _run(self) -> list[str]:
        from pytest_bpfmaps.errors import ExpectationError
        from pytest_bpfmaps.matrix.compilers import is_portable
        from pytest_bpfmaps.matrix.measuring import recording_of
        from pytest_bpfmaps.selftests.runner import run_case, spares_checks

        recording = recording_of(self.config)
        if recording is not None:
            why = "bpf_collect checks what the verifier says of the program as it is"
            recording.elsewhere(self.path.name, [self.case.program], why)
        try:
            return run_case(self.case, portable=is_portable(self.config))
        except ExpectationError as e:
            if self.case.privileged or not spares_checks():
                raise
            # The kernel's own runner does not even try these.
            pytest.skip(
                f"mitigations=off spares users without privileges some of the verifier's checks: {e.what}"
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """Returns our message, without a traceback. A log becomes a section of the report."""
        return _message(excinfo) or super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Returns the file, the program's line (from 0), and the item's name."""
        return self.path, _line_of(self.path, self.case.program), self.name


def _message(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    from pytest_bpfmaps.errors import BpfError

    return str(excinfo.value) if isinstance(excinfo.value, BpfError) else ""


def _matches(config: pytest.Config) -> frozenset[Path]:
    """Returns the files that match `bpf_collect` and have expectations.

    Raises pytest.UsageError for a file whose name can't be part of a test's name.
    """
    found = config.stash.get(_MATCHES, None)
    if found is None:
        patterns = config.getini("bpf_collect")
        root = glob.escape(str(config.rootpath))
        patterns = [os.path.join(root, one) for one in patterns]  # an absolute pattern stays as it is
        names = (name for one in patterns for name in glob.glob(one, recursive=True, include_hidden=True))
        paths = map(Path, names)
        found = frozenset(p for p in paths if p.is_file() and _TAGS.search(p.read_bytes()))
        _check_names(found)
        config.stash[_MATCHES] = found
    return found


def _check_names(paths: Iterable[Path]) -> None:
    """Raises pytest.UsageError for a name that is no text: pytest can neither keep nor print such a name."""
    from pytest_bpfmaps.errors import shown

    for path in sorted(paths):
        if not str(path).isprintable():
            raise pytest.UsageError(
                f"bpf_collect cannot collect {shown(str(path))}: its name has bytes that are no text\n"
                "  -> rename it, or name other files in bpf_collect"
            )


@cache
def _line_of(path: Path, function: str) -> int | None:
    declared = re.compile(rf"\b{re.escape(function)}\s*\(")
    lines = path.read_text(errors="replace").splitlines()
    return next((n for n, line in enumerate(lines) if declared.search(line)), None)
