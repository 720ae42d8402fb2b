"""Counts the tests that did not run, by the feature that was missing; ``--bpf-strict`` fails on them."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_bpfmaps.matrix.items import (
    KERNEL_PROPERTY,
    MISSING_PROPERTY,
    is_bpf_item,
    is_strict,
    kernel_of,
    may_never_run,
    properties,
    without_kernel,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Registers the option and its key of the configuration file."""
    text = (
        "fail when a BPF test is skipped for a feature that the kernel's release has, when one is skipped on "
        "every chosen kernel, or when no BPF test runs."
    )
    parser.getgroup("bpfmaps").addoption("--bpf-strict", action="store_true", default=False, help=text)
    parser.addini("bpf_strict", text, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the counter in the process where reports arrive: without workers, or the controller."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips(config), "bpfmaps-skips")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds its kernel's name to each report of a BPF test."""
    for item in items:
        if is_bpf_item(item):
            item.user_properties.append((KERNEL_PROPERTY, kernel_of(item)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Skips a test where a fixture's program attaches to something that the kernel lacks."""
    try:
        yield
    except OSError as error:
        _skip_for_absent(item, error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skips a test whose program attaches to something that the kernel lacks."""
    try:
        return (yield)
    except OSError as error:
        _skip_for_absent(item, error)
        raise


def _skip_for_absent(item: pytest.Item, error: OSError) -> None:
    """Skips the test if `error` is about a target that this kernel lacks. Not with ``--bpf-strict``."""
    section = getattr(error, "section", None)
    if section is None or is_strict(item.config):
        return
    from pytest_bpfmaps.kernel.lacking_attach_points import absent_target
    from pytest_bpfmaps.kernel.running_kernel import sentence_on

    feature = absent_target(section)
    if feature is not None:
        item.user_properties.append((MISSING_PROPERTY, feature.name))
        sentence = sentence_on("attach", section, feature)
        raise pytest.skip.Exception(sentence, _use_item_location=True) from error


class Skips:
    """Collects from reports what was missing and what ran, over all kernels."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._strict = is_strict(config)
        self._missing: dict[str, list[tuple[str, str]]] = {}  # feature -> (kernel, test)
        self._ran: dict[str, bool] = {}  # test without its kernel -> whether it ran on any kernel
        self._looks = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what became of a BPF test."""
        found = properties(report)
        kernel = found.get(KERNEL_PROPERTY)
        if kernel is None or report.when == "teardown":
            return
        test = without_kernel(report.nodeid, str(kernel))
        ran = report.failed or (report.when == "call" and (report.passed or hasattr(report, "wasxfail")))
        self._ran[test] = self._ran.get(test, False) or ran
        if report.skipped and MISSING_PROPERTY in found:
            self._missing.setdefault(str(found[MISSING_PROPERTY]), []).append((str(kernel), test))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fails a run that tested too little, with ``--bpf-strict``."""
        self._looks = session.config.getoption("collectonly")
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and self._shortcomings():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Counts the skips by feature, and says what ``--bpf-strict`` finds."""
        _join_places(terminalreporter.stats.get("skipped", ()))
        if self._missing:
            terminalreporter.section("BPF features missing")
            for feature, places in sorted(self._missing.items(), key=lambda f: (-len(f[1]), f[0])):
                kernels = ", ".join(dict.fromkeys(kernel for kernel, _ in places))
                terminalreporter.line(f"lacks {feature}: {_tests(len(places))} ({kernels})")
        if shortcomings := self._shortcomings():
            terminalreporter.section("--bpf-strict", red=True)
            for line in shortcomings:
                terminalreporter.line(line, red=True)

    def _shortcomings(self) -> Sequence[str]:
        if not self._strict or self._looks:
            return ()
        if not any(self._ran.values()):
            return [f"no BPF test ran: {_tests(len(self._ran))} collected"]
        never = [test for test, ran in self._ran.items() if not ran and not may_never_run(self._config, test)]
        return [f"{test}: ran on no kernel" for test in never]


def _join_places(skipped: Sequence[pytest.TestReport]) -> None:
    """Has pytest's summary show one line for a reason that tests of several files have, with their folder."""
    places: dict[str, list[pytest.TestReport]] = {}
    for report in skipped:
        found = properties(report)
        if MISSING_PROPERTY in found and isinstance(report.longrepr, tuple):
            places.setdefault(report.longrepr[2], []).append(report)
    for reason, reports in places.items():
        files = {str(report.longrepr[0]) for report in reports if isinstance(report.longrepr, tuple)}
        if len(files) > 1:
            for report in reports:
                report.longrepr = (os.path.commonpath(files), None, reason)  # type: ignore[assignment]


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"
