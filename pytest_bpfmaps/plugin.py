"""The plugin that pytest loads: options, markers, and each BPF test once per chosen kernel.

pytest imports this module in every run, also in suites without BPF tests. So everything that takes time to
import is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from importlib import import_module
from typing import Any

import pytest

from pytest_bpfmaps.fixtures import *  # noqa: F403 - pytest finds fixtures in a plugin's own names
from pytest_bpfmaps.matrix import HOST
from pytest_bpfmaps.matrix.items import (
    COLLECTED,
    GUESTS,
    KERNEL,
    NAMES,
    SELECTION,
    TARGET,
    WORKERS,
    Collected,
    chosen,
    fitting,
    guest_options,
    is_bpf_item,
    kernels_here,
    only_distributes,
    option,
    uses_bpf,
)

# Registered by hand: pytest would warn of a module in `pytest_plugins` that is imported already.
PLUGINS = (
    "pytest_bpfmaps.report.assertions",
    "pytest_bpfmaps.report.failures",
    "pytest_bpfmaps.report.kernel_table",
    "pytest_bpfmaps.report.leaks",
    "pytest_bpfmaps.report.measures",
    "pytest_bpfmaps.report.skips",
)

# option, type on the command line, type in the configuration file, default, help
_OPTIONS: tuple[tuple[str, type, Any, Any, str], ...] = (
    ("vm-cpus", int, "int", 2, "CPUs of a guest (default: 2)."),
    ("vm-memory", str, "string", "1G", "memory of a guest (default: 1G)."),
    (
        "vm-jobs",
        int,
        "int",
        0,
        "guests that run at a time (default: as many as the processors and the memory allow).",
    ),
    (
        "vm-network",
        bool,
        "bool",
        False,
        "give guests a network by QEMU's user mode; the host is 10.0.2.2 (default: guests have only lo).",
    ),
    (
        "vm-timeout",
        float,
        "float",
        60.0,
        "seconds that a guest may take to boot, and a test or another step may take (default: 60; three "
        "times as long where guests are emulated).",
    ),
    ("clang", str, "string", "", "clang to compile with (default: $CLANG, else the newest on the PATH)."),
    (
        "artifacts",
        str,
        "string",
        "",
        "a folder for what is worth keeping of each test that fails: its objects, the verifier's logs, maps "
        "as JSON, packets as pcap, the kernel's log.",
    ),
    (
        "vmlinux",
        str,
        "string",
        "newest",
        "the types of vmlinux.h, where the project has no vmlinux.h: newest (of the run's kernels and the "
        "catalogue's), a kernel's name, a path to a header or BTF, or per-kernel: an object for each kernel "
        "(default: newest).",
    ),
)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Registers the command line options, and for each the key of the configuration file."""
    for name in PLUGINS:
        pluginmanager.register(import_module(name), name)
    group = parser.getgroup("bpfmaps", "BPF programs and maps on real kernels")
    group.addoption(
        "--bpf-kernel",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="kernels to run BPF tests on: host, a name of the catalogue (see bpfmaps kernels list), a glob, "
        "a path to a kernel image or a build tree, all, newest, newest:GLOB, or auto. auto is the default: "
        "the running kernel, or newest where this user can't load BPF programs here.",
    )
    parser.addini("bpf_kernel", "kernels to run BPF tests on (list)", type="args", default=[])
    group.addoption(
        "--bpf-vm",
        choices=["auto", "warm", "virtme-ng"],
        default=None,
        help="how guests are started: warm (from a saved state), virtme-ng (it boots them), or auto (the "
        "default: warm, and virtme-ng for a kernel whose state can't be made or restored).",
    )
    parser.addini("bpf_vm", "how guests are started", type="string", default="auto")
    for name, kind, ini_kind, default, text in _OPTIONS:
        takes: dict[str, Any] = {"type": kind, "metavar": kind.__name__.upper()}
        if kind is bool:
            takes = {"action": "store_true"}
        group.addoption(f"--bpf-{name}", default=None, help=text, **takes)
        parser.addini(f"bpf_{name.replace('-', '_')}", text, type=ini_kind, default=default)
    group.addoption(
        "--bpf-watch",
        action="store_true",
        default=False,
        help="stay after the run, and run the tests that depend on a source, header or test when it changes. "
        "Enter runs all, q ends. It needs watchfiles: pip install 'pytest-bpfmaps[watch]'.",
    )
    group.addoption(
        "--bpf-gdb",
        action="store_true",
        default=False,
        help="at a failing test in a guest, say how to attach gdb to its kernel, and wait.",
    )
    text = "kernel warnings that do not fail a test; each line: REGEX  # REASON"
    parser.addini("bpf_allow_kernel_warnings", text, type="linelist", default=[])
    text = (
        "refuse code that works here, and that libbpf or the loader of production would refuse; "
        "--bpf-strict does so, too"
    )
    parser.addini("bpf_portable", text, type="bool", default=False)
    text = "tests that may lack what they need on every chosen kernel (globs of their ids without the kernel)"
    parser.addini("bpf_allow_never_ran", text, type="args", default=[])
    parser.addini("bpf_paths", "folders to look up BPF sources in", type="paths", default=["bpf"])
    text = (
        "BPF sources (globs) to collect as tests: one test per program, with the expectations of the source"
    )
    parser.addini("bpf_collect", text, type="args", default=[])
    text = "write bpf_types.py, the types of objects for mypy and editors, into the first folder of testpaths"
    parser.addini("bpf_stubs", text, type="bool", default=False)
    parser.addini("bpf_collect_cflags", "arguments for clang for these sources", type="args", default=[])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Loads pytest-xdist before options are parsed: guests need it, and autoloading may be off.

    With ``--bpf-watch``, this process stays, and forks for each run. Each fork continues from here.
    """
    _load_xdist(early_config)
    given = early_config.known_args_namespace
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # it has the options of the process that started it
    if given.bpf_watch and not (given.help or given.version or is_worker):
        from pytest_bpfmaps.watch import stay

        stay(early_config)
    return (yield)


def _load_xdist(early_config: pytest.Config) -> None:
    manager = early_config.pluginmanager
    wanted = early_config.known_args_namespace.bpf_kernel or early_config.getini("bpf_kernel")
    if not wanted or manager.has_plugin("xdist") or manager.is_blocked("xdist"):
        return
    try:
        import xdist.plugin
    except ImportError:
        return  # a run that needs a guest says so later
    manager.register(xdist.plugin, "xdist")


def pytest_cmdline_main(config: pytest.Config) -> None:
    """Decides the kernels. Makes pytest-xdist wait until the tests of each kernel are known."""
    if hasattr(config, "workerinput"):
        if config.workerinput.get("bpfmaps", {}).get("kernel", HOST) != HOST:
            from pytest_bpfmaps.compat.other_plugins import settle_in_guest

            settle_in_guest(config.workerinput)
        return
    patterns = option(config, "bpf_kernel")
    if config.getoption("bpf_gdb") and not _only_looks(config):
        from pytest_bpfmaps.matrix.gdb_conditions import check_gdb

        check_gdb(config, patterns)
    if patterns in ([], ["auto"]):
        _have_workers_wait(config)
        return  # decided after the collection, when it is known whether there are BPF tests
    from pytest_bpfmaps.errors import VmError
    from pytest_bpfmaps.matrix.selection import select

    try:
        selection = select(patterns)
        config.stash[SELECTION] = selection
        if selection.guests and not _only_looks(config):
            from pytest_bpfmaps.matrix.guests import Guests

            config.stash[GUESTS] = Guests(config, selection, guest_options(config))
    except VmError as error:
        raise pytest.UsageError(error.full_text()) from None


def _have_workers_wait(config: pytest.Config) -> None:
    """Makes pytest-xdist wait, if ``-n`` is given and BPF programs can't be loaded here.

    In that case its workers may have to be guests.
    """
    if not only_distributes(config) or _only_looks(config):
        return
    from pytest_bpfmaps.matrix.default_kernel import refusal

    if refusal():
        from pytest_bpfmaps.matrix.xdist_session import Workers

        config.stash[WORKERS] = Workers(config)


def _only_looks(config: pytest.Config) -> bool:
    looks = (
        "collectonly",
        "showfixtures",
        "show_fixtures_per_test",
        "help",
        "version",
        "markers",
        "cacheshow",
    )
    return any(config.getoption(name, None) for name in looks)


@pytest.hookimpl(trylast=True)  # after pytest's own --lf, which must choose first
def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers, and prepares what this process does: distribute tests, run tests, or both."""
    config.addinivalue_line(
        "markers",
        "bpf_kernels(*names): run the test only on the chosen kernels that a name fits. A name may be a "
        "glob, or a range of versions such as '>=5.15,<6.6'.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_fresh_kernel: run the test in a guest that is started for this test alone and ends after it.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_requires(*features): skip the test, with the reason, where the kernel or clang lacks a feature "
        "(of clang: clang='__clang_major__ >= 15'). Features are probed, not guessed from a version.",
    )
    config.addinivalue_line(
        "markers",
        "bpf_kernel_warnings(*regexes, reason): kernel warnings that do not fail the test. "
        "They may appear or not.",
    )
    if config.getini("bpf_collect"):
        from pytest_bpfmaps.matrix import source_items

        config.pluginmanager.register(source_items, "bpfmaps-source-items")
    if option(config, "bpf_artifacts"):
        from pytest_bpfmaps.report import artifacts

        artifacts.register(config)
    if config.getini("bpf_stubs") and not hasattr(config, "workerinput") and not config.option.help:
        from pytest_bpfmaps.matrix import stub_module

        config.pluginmanager.register(stub_module, "bpfmaps-stub-module")
    if config.getini("bpf_allow_kernel_warnings"):
        from pytest_bpfmaps.report.allowed import allowed_by

        allowed_by(config, "bpf_allow_kernel_warnings")  # raises for a wrong line, before anything runs
    worker = getattr(config, "workerinput", {})
    given = worker.get("bpfmaps")
    if given is not None:
        config.stash[KERNEL] = given["kernel"]
    if "bpfmaps_watch" in worker:
        from pytest_bpfmaps.matrix import used_sources

        config.pluginmanager.register(used_sources.UsedSources(config), "bpfmaps-used-sources")
    if given is not None:
        config.stash[NAMES] = tuple(given["kernels"])
        from pytest_bpfmaps.matrix.worker import Worker

        config.pluginmanager.register(Worker(config, given), "bpfmaps-worker")
        return
    if SELECTION in config.stash:
        config.stash[NAMES] = config.stash[SELECTION].names
    if GUESTS in config.stash or (SELECTION not in config.stash and not _only_looks(config)):
        config.stash[COLLECTED] = Collected(config)
        config.pluginmanager.register(config.stash[COLLECTED], "bpfmaps-collected")
    if GUESTS in config.stash:
        config.pluginmanager.register(config.stash[GUESTS], "bpfmaps-guests")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Returns the lines for pytest's header: the kernels of this run, and what this machine lacks."""
    from pytest_bpfmaps.report.header import header_lines

    return header_lines(config)


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Returns a line on where the types of ``vmlinux.h`` come from, if the header does not have it."""
    if GUESTS in config.stash or config.get_verbosity() < 0 or not any(map(is_bpf_item, items)):
        return []
    from pytest_bpfmaps.report.header import vmlinux_line

    return [vmlinux_line(config)]


@pytest.fixture(scope="session")
def _bpf_target(request: pytest.FixtureRequest) -> str:
    """Returns the name of the kernel that the test is for."""
    return str(getattr(request, "param", HOST))


@pytest.hookimpl(trylast=True)  # the kernel is the last part of the id: test_x[a-6.1]
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Makes one test for each chosen kernel out of a BPF test."""
    config = metafunc.config
    if not uses_bpf(metafunc.fixturenames):
        return
    if not chosen(config):
        fitting(config, metafunc.definition)  # raises for a wrong range at once
        return
    kernels = kernels_here(config, metafunc.definition)
    if not kernels:
        return  # one item stays, which is skipped with the reason
    if TARGET not in metafunc.fixturenames:
        metafunc.fixturenames.append(TARGET)
    metafunc.parametrize(TARGET, kernels, ids=kernels, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips, with the reason, the tests that no chosen kernel fits."""
    for item in items:
        if item.get_closest_marker("bpf_kernels") is None or not uses_bpf(getattr(item, "fixturenames", ())):
            continue
        from pytest_bpfmaps.matrix.bpf_kernels import warn_of_unknown

        warn_of_unknown(config, item, chosen(config))
        if not fitting(config, item):
            run = ", ".join(chosen(config) or (HOST,))
            wanted = [pattern for mark in item.iter_markers("bpf_kernels") for pattern in mark.args]
            reason = f"for kernels {', '.join(wanted)}, and this run is for {run}"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(trylast=True)  # after pytest has said how many tests there are
def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the guests where tests need them.

    With ``--collect-only`` it tells which tests can't run.
    """
    config = session.config
    if config.getoption("collectonly"):
        if SELECTION in config.stash:
            from pytest_bpfmaps.matrix.unrunnable import show_expected_skips

            show_expected_skips(session)
        return
    has_bpf = any(map(is_bpf_item, session.items))
    if has_bpf:
        from pytest_bpfmaps.report import root_folder
        from pytest_bpfmaps.report.kernel_log import watch

        watch(config)
        config.pluginmanager.register(root_folder, "bpfmaps-root-folder")
    if GUESTS in config.stash:
        config.stash[GUESTS].begin(session)
    elif not chosen(config) and (WORKERS in config.stash or has_bpf):
        from pytest_bpfmaps.matrix.default_kernel import settle

        settle(session)
