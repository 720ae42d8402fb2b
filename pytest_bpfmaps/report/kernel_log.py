"""Fails a BPF test during which the kernel logs a warning, unless the warning is allowed with a reason."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

import pytest

from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import KERNEL, is_bpf_item
from pytest_bpfmaps.report.allowed import allowed_by, of_markers

if TYPE_CHECKING:
    from pytest_bpfmaps.kernel.kmsg import KernelLog

OPTION, MARKER = "bpf_allow_kernel_warnings", "bpf_kernel_warnings"
_REMEDY = f"if the warning is expected: @pytest.mark.{MARKER}(REGEX, reason=...), or {OPTION} for all tests"


def watch(config: pytest.Config) -> None:
    """Watches the log from now on, where it can be read."""
    from pytest_bpfmaps.kernel.kmsg import KernelLog

    try:
        watching = Watch(
            KernelLog(), allowed_by(config, OPTION), is_guest=config.stash.get(KERNEL, HOST) != HOST
        )
    except OSError:  # no privileges, or a container; `bpfmaps doctor` reports it
        return
    config.pluginmanager.register(watching, "bpfmaps-kernel-log")


class Watch:
    """Looks into the log after each BPF test, and again after its teardown."""

    def __init__(self, log: KernelLog, allowed: Iterable[re.Pattern[str]], *, is_guest: bool) -> None:
        self._log = log
        self._is_guest = is_guest
        self._always = list(allowed)
        self._allowed: list[re.Pattern[str]] | None = None  # None while no BPF test runs

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Ignores what was logged before the test. Looks at what fixtures cause when the test is done."""
        if not is_bpf_item(item):
            self._allowed = None
            return (yield)
        self._allowed = self._always
        self._log.skip()
        try:
            result = yield
            if item.get_closest_marker(MARKER) is not None:
                self._allowed = [*self._always, *of_markers(item, MARKER)]
        except BaseException as error:
            self._look(item, "setup", error)
            raise
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fails a test that passed or was skipped. A test that failed gets a section with the warning."""
        yield from self._watched(item, "call")
        return None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Makes an error of the teardown of a warning that the end of fixtures causes."""
        yield from self._watched(item, "teardown")
        return None

    def _watched(self, item: pytest.Item, when: str) -> Generator[None, object, None]:
        try:
            yield
        except BaseException as error:
            self._look(item, when, error)
            raise
        self._look(item, when)

    def _look(self, item: pytest.Item, when: str, error: BaseException | None = None) -> None:
        if self._allowed is None:
            return
        complaints = self._log.complaints()
        if complaints and self._is_guest:
            self._log.warn_again()
        found = [splat for splat in complaints if not self._allows(splat.lines)]
        if not found:
            return
        for splat in found:
            item.add_report_section(when, "kernel log", splat.text)
        if error is None or isinstance(error, pytest.skip.Exception):
            lines = [f"kernel: {splat.headline}" for splat in found]
            pytest.fail("\n".join([*lines, f"  -> {_REMEDY}"]), pytrace=False)

    def _allows(self, lines: Iterable[str]) -> bool:
        text = "\n".join(lines)
        return any(regex.search(text) for regex in self._allowed or ())

    def pytest_unconfigure(self) -> None:
        """Closes the log."""
        self._log.close()
