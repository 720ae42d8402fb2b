"""Finds, at collection, the tests that a kernel of the catalogue can't run. No guest boots for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_bpfmaps.matrix.items import (
    KERNEL_PROPERTY,
    MISSING_PROPERTY,
    SELECTION,
    is_strict,
    kernel_of,
    without_kernel,
)

if TYPE_CHECKING:
    from pytest_bpfmaps.matrix.selection import Guest
    from pytest_bpfmaps.vm.kernels.kernel import Kernel


def foresee(items: Iterable[pytest.Item], kernel: Kernel) -> dict[str, list[tuple[str, str]]]:
    """Returns, by node id, the required features that `kernel` certainly lacks, each with a sentence.

    Tests that it may run are left out. Raises BpfError when the stored files of the kernel are damaged.
    """
    from pytest_bpfmaps.kernel.offline_features import RecordedKernel
    from pytest_bpfmaps.vm.kernels.catalogue import check_content

    check_content(kernel, "btf", "boot/config")
    recorded = RecordedKernel(kernel.release, kernel.btf, kernel.config)
    found: dict[str, list[tuple[str, str]]] = {}
    for item in items:
        for mark in item.iter_markers("bpf_requires"):
            features = {kind: wanted for kind, wanted in mark.kwargs.items() if kind != "clang"}
            if missing := list(recorded.missing_features(mark.args, features)):
                found.setdefault(item.nodeid, []).extend(missing)
    return found


def show_expected_skips(session: pytest.Session) -> None:
    """Has the summary say which of the chosen kernels lack what, after a collection for all of them."""
    from pytest_bpfmaps.errors import BpfError

    config = session.config
    expected = ExpectedSkips()
    for guest in config.stash[SELECTION].guests:
        items = [item for item in session.items if kernel_of(item) == guest.kernel.name]
        try:
            expected.add(guest.kernel.name, items, foresee(items, guest.kernel))
        except BpfError as error:  # libbpf is missing, or BTF is damaged: tests will say so
            expected.notes.append(str(error))
    expected.hosts = {_test_of(item) for item in session.items if kernel_of(item) == "host"}
    config.pluginmanager.register(expected, "bpfmaps-expected-skips")


class ExpectedSkips:
    """What is foreseen of the collected tests, over all chosen kernels."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.hosts: set[str] = set()  # tests that the running kernel may run
        self._missing: dict[str, list[str]] = {}  # feature -> kernels, one for each test
        self._unable: dict[str, list[str]] = {}  # test -> sentences, one for each kernel
        self._able: set[str] = set()

    def add(
        self, kernel: str, items: Iterable[pytest.Item], missing: Mapping[str, list[tuple[str, str]]]
    ) -> None:
        """Notes what `foresee` found for the items of a kernel."""
        for item in items:
            test = _test_of(item)
            if item.nodeid not in missing:
                self._able.add(test)
                continue
            feature, sentence = missing[item.nodeid][0]  # the test is skipped at the first one
            self._missing.setdefault(feature, []).append(kernel)
            self._unable.setdefault(test, []).append(sentence)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Counts the expected skips by feature, and names the tests that no chosen kernel can run."""
        if terminalreporter.verbosity < 0 or not (self._missing or self.notes):
            return
        terminalreporter.section("BPF features missing")
        for line in self.notes:
            terminalreporter.line(line)
        for feature, kernels in sorted(self._missing.items(), key=lambda f: (-len(f[1]), f[0])):
            count = "1 test" if len(kernels) == 1 else f"{len(kernels)} tests"
            terminalreporter.line(f"lacks {feature}: {count} ({', '.join(dict.fromkeys(kernels))})")
        for test, sentences in self._unable.items():
            if test not in self._able and test not in self.hosts:
                terminalreporter.line(f"{test}: no chosen kernel can run it: {'; '.join(sentences)}")


def _test_of(item: pytest.Item) -> str:
    return without_kernel(item.nodeid, kernel_of(item))


def foresee_all(
    config: pytest.Config, placed: Iterable[tuple[pytest.Item, str]], guests: Iterable[Guest]
) -> set[str]:
    """Has this process skip the tests that their kernel certainly can't run; returns their node ids.

    `placed` are tests with their kernels. With ``--bpf-strict`` it skips none: the guest has to say why.
    """
    from pytest_bpfmaps.errors import BpfError

    found: dict[str, tuple[str, str, str]] = {}
    marked: dict[str, list[pytest.Item]] = {}
    for item, kernel in placed:
        if item.get_closest_marker("bpf_requires") is not None:
            marked.setdefault(kernel, []).append(item)
    for guest in guests if marked and not is_strict(config) else ():
        name = guest.kernel.name
        with contextlib.suppress(BpfError):  # libbpf is missing, or BTF is damaged: tests will say so
            for test, missing in foresee(marked.get(name, ()), guest.kernel).items():
                found[test] = (name, *missing[0])
    if found:
        config.pluginmanager.register(Unrunnable(found), "bpfmaps-unrunnable")
    return set(found)


class Unrunnable:
    """Skips tests that their kernel can't run. It is registered last, so that pytest asks it first."""

    def __init__(self, missing: Mapping[str, tuple[str, str, str]]) -> None:
        self._missing = missing  # test -> kernel, feature, sentence

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skips the test as the probe in the guest would."""
        if item.nodeid in self._missing:
            kernel, feature, sentence = self._missing[item.nodeid]
            item.user_properties = [(k, v) for k, v in item.user_properties if k != KERNEL_PROPERTY]
            item.user_properties += [(KERNEL_PROPERTY, kernel), (MISSING_PROPERTY, feature)]
            pytest.skip(sentence)
